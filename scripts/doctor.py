"""Check the configuration, and say what is wrong and what to do."""

from __future__ import annotations

import argparse
import sys

from scripts.failures import failures_as_lines
from serving.diagnosis import console, diagnose, report


def main() -> None:
    """Check settings, folders, port, PostgreSQL, Redis, clock, models and engines.

    Prints a line for each, and exits with 1 if something is wrong. Changes nothing.
    """
    problems = report(diagnose())
    if problems:
        console.print(f"[bold red]{problems} {'problem' if problems == 1 else 'problems'}[/]")
        sys.exit(1)
    console.print("[green]nothing is wrong[/]")


if __name__ == "__main__":
    # argparse is imported faster than typer.
    argparse.ArgumentParser("python -m scripts.doctor", description=__doc__).parse_args()
    with failures_as_lines():
        main()
