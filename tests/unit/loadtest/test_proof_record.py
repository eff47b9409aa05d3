"""Proofs: each has its command, and its record says what happened."""

from __future__ import annotations

import re
from typing import Literal

import pytest

from core.paths import ROOT
from loadtest.bench.proof_record import NAMES, PROOFS, Result, section, shortened, with_section
from tests.prove.conftest import Recorder


def test_every_proof_has_a_make_target_and_every_target_a_proof() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^prove-([a-z0-9]+):.* ## ", makefile, re.MULTILINE)
    assert sorted(targets) == NAMES


def test_every_proof_has_tests_and_none_may_skip() -> None:
    for name in NAMES:
        files = list((PROOFS / name).glob("test_*.py"))
        assert files, name
        for file in files:
            assert not re.search(r"pytest\.(mark\.)?(skip|importorskip|xfail)", file.read_text())


def report(
    when: Literal["setup", "call", "teardown"],
    outcome: Literal["passed", "failed", "skipped"],
    **measured: str,
) -> pytest.TestReport:
    place = ("f.py", 1, "test_a")
    return pytest.TestReport(
        "f.py::test_a", place, {}, outcome, None, when,
        duration=0.5, user_properties=list(measured.items()),
    )  # fmt: skip


def test_recorder_keeps_the_worst_outcome_and_all_seconds() -> None:
    recorder = Recorder()
    recorder.pytest_runtest_logreport(report("setup", "passed"))
    recorder.pytest_runtest_logreport(report("call", "failed"))
    recorder.pytest_runtest_logreport(report("teardown", "passed"))
    assert recorder.results == {"test_a": Result("test_a", "failed", 1.5)}


def test_recorder_keeps_what_a_test_measured() -> None:
    recorder = Recorder()
    recorder.pytest_runtest_logreport(report("call", "passed", ready="9.5 s", disk="1 MB"))
    assert recorder.results["test_a"].measured == "ready 9.5 s, disk 1 MB"


def test_section_says_whether_it_is_proven() -> None:
    results = [Result("test_a", "passed", 1.25, "ready 9.5 s"), Result("test_b", "failed", 0.5)]
    text = section("alerts", results, proven=False)
    assert "**NOT proven**, 2 tests, 2 s." in text
    assert "| `test_a` | passed | 1.2 | ready 9.5 s |\n| `test_b` | failed | 0.5 |  |\n" in text
    assert "`make prove-alerts`, 20" in text


def many(count: int, outcome: str = "passed", measured: str = "") -> list[Result]:
    return [Result(f"test_a[{number}]", outcome, 1.0, measured) for number in range(count)]


@pytest.mark.parametrize(
    ("results", "rows"),
    [
        ([], []),
        (many(1), many(1)),
        (many(5), many(5)),
        (many(6), [Result("test_a", "passed", 6.0, "6 inputs")]),
        # Each failure, and each figure, has its row.
        ([*many(6), *many(1, "failed")], [*many(6), *many(1, "failed")]),
        (many(6, measured="9 s"), many(6, measured="9 s")),
        (
            [Result("test_b", "failed", 1.0), *many(7)],
            [Result("test_b", "failed", 1.0), Result("test_a", "passed", 7.0, "7 inputs")],
        ),
    ],
)
def test_many_inputs_that_pass_have_one_row(results: list[Result], rows: list[Result]) -> None:
    assert shortened(results) == rows


def test_new_section_replaces_the_old_one_and_leaves_the_others() -> None:
    page = "# Proofs\n\nText.\n"
    page = with_section(page, "image", "## image\n\nold\n")
    page = with_section(page, "alerts", "## alerts\n\nfirst\n")
    page = with_section(page, "image", "## image\n\nnew\n")
    assert page == "# Proofs\n\nText.\n\n## alerts\n\nfirst\n\n## image\n\nnew\n"
