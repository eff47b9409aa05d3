"""Make an API key for a client, and its entry for API_KEYS."""

from __future__ import annotations

from typing import Annotated

import typer

from core.api_keys import KEY_SCOPES, KeyScope, make_api_key


def main(
    name: Annotated[str, typer.Argument(help="the client; rate limits count by this name")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help=f"any of {', '.join(KEY_SCOPES)}; repeatable [default: predict]"),
    ] = None,
) -> None:
    """Print a new key for NAME and its entry for API_KEYS, which cannot give the key back."""
    requested = set(scope or ["predict"])
    scopes: list[KeyScope] = [known for known in KEY_SCOPES if known in requested]
    if not name or set(name) & set(":,+ ") or len(scopes) != len(requested):
        raise typer.BadParameter(
            f"a name must not contain ':,+ ', and scopes are {', '.join(KEY_SCOPES)}"
        )
    key, api_key = make_api_key(name, scopes)
    print(f"key, for {name} alone:  {key}")
    print(f"add to API_KEYS:        {api_key.entry()}")


if __name__ == "__main__":
    typer.run(main)
