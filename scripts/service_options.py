"""The options of commands that call a service: `--url` and `--key-file`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from web.service_client import connect

_OPTIONS = ("--url", "--key-file")


class ServiceGroup(TyperGroup):
    """A group of such commands: its options may also stand after the name of the command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own: list[str] = []
        others: list[str] = []
        rest = iter(args)
        for argument in rest:
            if argument == "--":
                others += [argument, *rest]
            elif argument in _OPTIONS:
                own += [argument, *[value for _, value in zip("1", rest, strict=False)]]
            else:
                is_own = argument.startswith(tuple(f"{option}=" for option in _OPTIONS))
                (own if is_own else others).append(argument)
        return super().parse_args(ctx, own + others)


def service_options(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(help="the service", show_default="this machine's, at HOST and PORT"),
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="file with an API key of the scope admin", dir_okay=False)
    ] = None,
) -> None:
    """Connect to the service; the commands find the client in `context.obj`."""
    context.obj = connect(url, key_file)
