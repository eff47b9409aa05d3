"""Make an API key for a client, and its entry for API_KEYS or API_KEYS_FILE."""

from __future__ import annotations

from typing import Annotated

import typer

from core.api_keys import (
    KEY_SCOPES,
    ApiKey,
    KeyScope,
    make_api_key,
    parse_api_keys,
    parse_key_file,
    parse_limits,
)
from core.command_output import JsonOption, emit
from scripts.running import run_command


def main(
    name: Annotated[str, typer.Argument(help="the client; rate limits count by this name")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help=f"any of {', '.join(KEY_SCOPES)}; repeatable", show_default="predict"),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(help="a rate limit of its own, as predict=1000/minute; repeatable"),
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Print a new key for NAME and its entry, from which nobody can find the key."""
    requested = dict.fromkeys(scope or ["predict"])
    scopes: list[KeyScope] = [known for known in KEY_SCOPES if known in requested]
    unknown = [each for each in requested if each not in KEY_SCOPES]
    if unknown:
        message = f"{unknown[0]!r} is not known; scopes are {', '.join(KEY_SCOPES)}"
        raise typer.BadParameter(message, param_hint="--scope")
    try:
        limits = parse_limits("+".join(limit)) if limit else {}
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--limit") from None
    key, api_key = make_api_key(name, scopes, limits)
    if not name.isprintable() or not _is_readable(api_key):
        raise typer.BadParameter(
            "a name must be printable, without ':', ',', '+' and spaces, and not begin with '#'"
        )

    def show() -> None:
        print(f"key, for {name} alone:  {key}")
        print(f"add to API_KEYS, or as a line to API_KEYS_FILE:  {api_key.entry()}")

    emit({"name": name, "scopes": scopes, "key": key, "entry": api_key.entry()}, show)


def _is_readable(api_key: ApiKey) -> bool:
    """Whether the service reads the entry as this key, in a variable and in a file."""
    try:
        entries = parse_api_keys(api_key.entry())
    except ValueError:
        return False
    return [*entries] == [*parse_key_file(api_key.entry())[0]] == [api_key]


if __name__ == "__main__":
    run_command(main)
