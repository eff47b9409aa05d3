"""Make an API key for a client, and its entry for API_KEYS or API_KEYS_FILE."""

from __future__ import annotations

from typing import Annotated

import typer

from core.api_keys import KEY_SCOPES, KeyScope, make_api_key, parse_limits


def main(
    name: Annotated[str, typer.Argument(help="the client; rate limits count by this name")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help=f"any of {', '.join(KEY_SCOPES)}; repeatable [default: predict]"),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(help="a rate limit of its own, as predict=1000/minute; repeatable"),
    ] = None,
) -> None:
    """Print a new key for NAME and its entry, from which nobody can find the key."""
    requested = set(scope or ["predict"])
    scopes: list[KeyScope] = [known for known in KEY_SCOPES if known in requested]
    if not name or set(name) & set(":,+ ") or len(scopes) != len(requested):
        raise typer.BadParameter(
            f"a name must not contain ':,+ ', and scopes are {', '.join(KEY_SCOPES)}"
        )
    try:
        limits = parse_limits("+".join(limit)) if limit else {}
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    key, api_key = make_api_key(name, scopes, limits)
    print(f"key, for {name} alone:  {key}")
    print(f"add to API_KEYS, or as a line to API_KEYS_FILE:  {api_key.entry()}")


if __name__ == "__main__":
    typer.run(main)
