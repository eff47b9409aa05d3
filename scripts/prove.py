"""Run a proof, tests too slow or demanding for the suite, and record it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from core.command_output import JsonOption, emit
from core.paths import ROOT
from loadtest.bench.record import commit, machine
from scripts.running import run_command

PROOFS = ROOT / "tests" / "prove"
# The environment names with it the file that tests/prove/conftest.py writes.
RESULTS_FILE = "PROOF_RESULTS_FILE"
PAGE = ROOT / "docs" / "proofs.md"
# A test with more that pass and measure nothing has one row.
MOST_INPUTS = 5
NAMES = sorted(path.parent.name for path in PROOFS.glob("*/__init__.py"))


class Result(NamedTuple):
    """The outcome of one test."""

    test: str
    outcome: str
    seconds: float
    # What it measured, as it recorded it with `record_property`.
    measured: str = ""


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


def section(name: str, results: Sequence[Result], *, proven: bool) -> str:
    """The page's section on a proof."""
    claim = (
        ast.get_docstring(ast.parse((PROOFS / name / "__init__.py").read_text(encoding="utf-8")))
        or ""
    )
    host = machine()
    seconds = sum(result.seconds for result in results)
    verdict = (
        f"`make prove-{name}`, {datetime.now(UTC):%Y-%m-%d}, commit {commit(PAGE)}, "
        f"{host['cores']} cores ({host['cpu']}): **{'proven' if proven else 'NOT proven'}**, "
        f"{len(results)} tests, {seconds:.0f} s."
    )
    rows = "".join(
        f"| `{result.test}` | {result.outcome} | {result.seconds:.1f} | {result.measured} |\n"
        for result in shortened(results)
    )
    head = f"## {name}\n\n{claim}\n\n{verdict}\n\n| test | result | seconds | measured |\n"
    return f"{head}| --- | --- | --- | --- |\n{rows}"


def shortened(results: Sequence[Result]) -> list[Result]:
    """The results, with one in the place of many inputs of a test that all passed."""
    by_test: dict[str, list[Result]] = {}
    for result in results:
        by_test.setdefault(result.test.partition("[")[0], []).append(result)
    rows: list[Result] = []
    for test, inputs in by_test.items():
        has_news = any(result.outcome != "passed" or result.measured for result in inputs)
        if has_news or len(inputs) <= MOST_INPUTS:
            rows += inputs
        else:
            seconds = sum(result.seconds for result in inputs)
            rows.append(Result(test, "passed", seconds, f"{len(inputs)} inputs"))
    return rows


def with_section(page: str, name: str, text: str) -> str:
    """`page` with its section on a proof replaced, or added at the end."""
    head, *sections = page.split("\n## ")
    by_name = {part.partition("\n")[0]: f"## {part.rstrip()}\n" for part in sections}
    by_name[name] = text.rstrip() + "\n"
    return "\n".join([head.rstrip() + "\n", *(by_name[known] for known in sorted(by_name))])


if __name__ == "__main__":
    run_command(main)
