"""What `make loadtest` makes of a run, and that it fails where it must."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.paths import ROOT
from loadtest.bench.baseline import Comparison
from loadtest.headless import FIGURES, MAX_USERS, REPORT, Loop, run_locust
from loadtest.outcome import Figures, Outcome
from loadtest.table import as_row, with_row
from scripts.loadtest import README
from tests.unit.tiny_server import TinyServer, response

WRONG = json.dumps({"id": "7", "sentiment": "positive"}).encode()


def outcome(*, p95_ms: float | None, failures: int = 0, per_second: float = 50.0) -> Outcome:
    answers = 0 if p95_ms is None else 1_500
    total = Figures("Aggregated", answers, failures, per_second, p95_ms, p95_ms, p95_ms)
    return Outcome(total, (), {})


async def test_wrong_replies_are_failures(tmp_path: Path) -> None:
    async with TinyServer(lambda _: response(body=WRONG)).running() as server:
        measured = await asyncio.to_thread(
            run_locust, server.url, users=8, seconds=4, folder=tmp_path
        )
        assert not measured.ok
        assert measured.total.answers == 0
        # No two users are the same client.
        addresses = {
            line.partition(": ")[2]
            for head in server.heads
            for line in head.splitlines()
            if line.lower().startswith("x-forwarded-for")
        }
    assert measured.total.failures == len(server.heads) == sum(measured.failures.values()) > 8
    assert len(addresses) == 8
    assert all("not as the contract has it" in failure for failure in measured.failures)
    assert Outcome.read(tmp_path / FIGURES) == measured
    assert (tmp_path / REPORT).read_text().lstrip().lower().startswith("<!doctype html>")


async def test_statuses_and_lost_connections_are_failures(tmp_path: Path) -> None:
    def refuse_or_hang_up(number: int) -> bytes:
        return response(503) if number % 2 else b""

    async with TinyServer(refuse_or_hang_up).running() as server:
        measured = await asyncio.to_thread(
            run_locust, server.url, users=8, seconds=4, folder=tmp_path, loop=Loop.open
        )
    assert not measured.ok
    assert measured.total.answers == 0
    kinds = {failure.partition(": ")[2].partition(":")[0] for failure in measured.failures}
    assert kinds == {"status 503", "no answer"}
    assert "http" not in "".join(measured.failures)


def test_where_nothing_answers_no_load_is_made(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "scripts.loadtest", "--host", "http://127.0.0.1:9"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    message = "nothing answers at http://127.0.0.1:9; `make serve` starts a service"
    assert (run.returncode, run.stdout, run.stderr.strip()) == (2, "", message)


@pytest.mark.parametrize(("users", "seconds"), [(0, 10), (MAX_USERS + 1, 10), (1, 0), (1, 4_000)])
def test_load_past_the_bounds_is_refused(users: int, seconds: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most"):
        run_locust("http://127.0.0.1:9", users=users, seconds=seconds, folder=tmp_path)


def test_run_is_recorded_as_the_last_row_of_the_table() -> None:
    row = as_row(
        Figures("Aggregated", 2_960, 0, 49.3, 16.0, 1_200.0, None),
        datetime(2026, 11, 24, tzinfo=UTC),
        {"cores": 2, "cpu": "AMD EPYC"},
        "sentiment loadtest",
    )
    assert row == (
        "| 2026-11-24 | 2 cores, AMD EPYC | `sentiment loadtest` "
        "| 2,960 | 0 | 49.3 | 16 | 1,200 | - |"
    )
    before = README.read_text()
    lines, end = before.splitlines(), "<!-- end of the rows of `make loadtest` -->"
    assert with_row(before, row).splitlines() == [
        *lines[: lines.index(end)], row, *lines[lines.index(end) :]
    ]  # fmt: skip
    header = next(line for line in lines if line.startswith("| date | machine | command"))
    assert header.count("|") == row.count("|")


@pytest.mark.parametrize(
    ("ours", "message"),
    [
        (outcome(p95_ms=50), []),
        (outcome(p95_ms=50, failures=1), ["of ours, 1 requests failed"]),
        (outcome(p95_ms=100), ["p95 is 1.00 times better, not 1.5 times"]),
        (outcome(p95_ms=50, per_second=40), ["80% of the baseline's requests a second"]),
        (
            outcome(p95_ms=None, per_second=0),
            [
                "of ours, 0 requests failed",
                "p95 is 0.00 times better, not 1.5 times",
                "0% of the baseline's requests a second",
            ],
        ),
    ],
)
def test_what_ours_falls_short_of_is_named(ours: Outcome, message: list[str]) -> None:
    assert Comparison(ours, outcome(p95_ms=100)).shortcomings() == message
