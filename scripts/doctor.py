"""Check the configuration, and say what is wrong and what to do."""

from __future__ import annotations

from core.command_output import JsonOption, emit, fail
from scripts.running import run_command
from serving.diagnosis import console, diagnose, report


def main(*, as_json: JsonOption = False) -> None:
    """Check settings, folders, port, PostgreSQL, Redis, clock, models and engines.

    Prints a line for each, and exits with 1 if something is wrong. Changes nothing.
    """
    findings = report(diagnose())
    problems = sum(finding.problem is not None for finding in findings)
    emit({"problems": problems, "findings": [finding._asdict() for finding in findings]})
    if problems:
        fail(f"{problems} {'problem' if problems == 1 else 'problems'}")
    console.print("[green]nothing is wrong[/]")


if __name__ == "__main__":
    run_command(main)
