"""The record of proofs in docs/proofs.md."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from core.paths import ROOT
from loadtest.bench.record import commit, machine

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
