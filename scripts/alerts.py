"""Check the alert rules, their tests, and both monitoring configurations."""

from __future__ import annotations

import typer

from core.command_output import JsonOption, emit, fail
from monitoring.tools import ToolMissing, check_configuration
from scripts.running import run_command


def main(*, as_json: JsonOption = False) -> None:
    """Exit with 1 if promtool or amtool rejects a file, with 2 if a tool is missing."""
    try:
        failed = check_configuration()
    except ToolMissing as error:
        fail(str(error), code=2)
    emit({"failed_checks": failed})
    raise typer.Exit(1 if failed else 0)


if __name__ == "__main__":
    run_command(main)
