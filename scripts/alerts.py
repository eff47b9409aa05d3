"""Check the alert rules, their tests, and both monitoring configurations."""

from __future__ import annotations

import typer

from monitoring.tools import ToolMissing, check_configuration
from scripts.running import run_command


def main() -> None:
    """Exit with 1 if promtool or amtool rejects a file, with 2 if a tool is missing."""
    try:
        failed = check_configuration()
    except ToolMissing as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    raise typer.Exit(1 if failed else 0)


if __name__ == "__main__":
    run_command(main)
