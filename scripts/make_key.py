"""Makes an API key: the key for its owner, and the entry for API_KEYS."""

from __future__ import annotations

from typing import Annotated

import typer

from core.api_keys import KEY_SCOPES, KeyScope, make_api_key


def main(
    name: Annotated[str, typer.Argument(help="whose it is; rate limits count by it")],
    scope: Annotated[
        list[str] | None, typer.Option(help=f"any of {', '.join(KEY_SCOPES)}; may be repeated")
    ] = None,
) -> None:
    """Print a new key for NAME once, and what the service is to know of it."""
    chosen: list[KeyScope] = [known for known in KEY_SCOPES if known in (scope or ["predict"])]
    if not name or set(name) & set(":,+ ") or len(chosen) != len(set(scope or ["predict"])):
        raise typer.BadParameter(
            f"a name has none of ':,+ ' in it, and scopes are {', '.join(KEY_SCOPES)}"
        )
    key, known_of_it = make_api_key(name, chosen)
    print(f"key, for {name} alone:  {key}")
    print(f"add to API_KEYS:        {known_of_it.entry()}")


if __name__ == "__main__":
    typer.run(main)
