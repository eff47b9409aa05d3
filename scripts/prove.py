"""Run a proof, tests too slow or demanding for the suite, and record it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from core.command_output import JsonOption, emit
from core.paths import ROOT
from loadtest.bench.proof_record import (
    NAMES,
    PAGE,
    PROOFS,
    RESULTS_FILE,
    Result,
    section,
    with_section,
)
from scripts.running import run_command


def main(
    name: Annotated[str, typer.Argument(help=f"one of {', '.join(NAMES)}")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Run the tests of tests/prove/NAME and write their results into docs/proofs.md.

    A skipped test counts as failed: a proof needs all its programs.
    """
    if name not in NAMES:
        raise typer.BadParameter(f"choose one of {', '.join(NAMES)}", param_hint="NAME")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.json"
        tests = str(PROOFS / name)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests]
        environment = os.environ | {RESULTS_FILE: str(file)}
        status = subprocess.run(
            command, cwd=ROOT, env=environment, check=False, stdout=sys.stdout
        ).returncode
        results = [Result(*fields) for fields in json.loads(file.read_text(encoding="utf-8"))]
    proven = status == 0 and all(result.outcome == "passed" for result in results)
    PAGE.write_text(
        with_section(PAGE.read_text(encoding="utf-8"), name, section(name, results, proven=proven)),
        encoding="utf-8",
    )
    verdict = f"{name}: {'proven' if proven else 'not proven'}; recorded in {PAGE}"
    document = {"proof": name, "proven": proven, "tests": [item._asdict() for item in results]}
    emit(document, lambda: print(verdict))
    raise typer.Exit(0 if proven else status or 1)


if __name__ == "__main__":
    run_command(main)
