"""`sentiment`: every command of scripts/ under one name."""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from core.gc import paused_gc
from core.version import VERSION
from scripts.running import run_command

FOLDER = Path(__file__).parent
# `sentiment --help` lists these first.
OPERATING = (
    "serve",
    "doctor",
    "migrate",
    "models",
    "save-models",
    "rollout",
    "score",
    "replay",
    "log",
    "labels",
    "privacy",
    "make-key",
)


@cache
def commands() -> dict[str, Path]:
    """Each command's name and its file: the modules of scripts/ that run with `python -m`."""
    return {
        path.stem.replace("_", "-"): path
        for path in sorted(FOLDER.glob("*.py"))
        if path != Path(__file__)
        and '\nif __name__ == "__main__":\n' in path.read_text(encoding="utf-8")
    }


def load_command(name: str) -> Any:
    """The typer command of a module: its `app`, or one made from its `main`."""
    with paused_gc():
        module = import_module(f"scripts.{name.replace('-', '_')}")
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False)
        app.command()(module.main)
    command = typer.main.get_command(app)
    command.name = name
    _join_lines(command)
    return command


def _join_lines(command: Any) -> None:
    """Let the terminal wrap each paragraph of the help: Typer keeps the lines of the source."""
    if command.help:
        command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", command.help)
    for inner in getattr(command, "commands", {}).values():
        _join_lines(inner)


class ScriptGroup(TyperGroup):
    """Imports only the command that runs: importing all of them takes seconds."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        others = [name for name in commands() if name not in OPERATING]
        return [*OPERATING, *others]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in commands():
            return None
        summary = (
            ast.get_docstring(ast.parse(commands()[cmd_name].read_text(encoding="utf-8"))) or ""
        )
        panel = "Operate" if cmd_name in OPERATING else "Measure and develop"
        return TyperCommand(cmd_name, help=summary.partition("\n")[0], rich_help_panel=panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and load_command(args[0]), rest


app = typer.Typer(cls=ScriptGroup, add_completion=False, no_args_is_help=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(VERSION)
        raise typer.Exit


@app.callback()
def sentiment(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print it and exit."
        ),
    ] = False,
) -> None:
    """Serve two sentiment models, roll out new ones, score files, and measure all of it."""


def main() -> None:
    """Run a command; its failure is one line, never a traceback."""
    run_command(app, "sentiment")


if __name__ == "__main__":
    main()
