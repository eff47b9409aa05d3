"""Short forms of what `make fuzz` and `make soak` do for long."""

from __future__ import annotations

import asyncio

from scripts.fuzz import fuzz
from scripts.soak import growth, soak, too_much
from tests.serving import ServedBento

CASES = 400
SOAK_SECONDS = 12.0


def test_whatever_is_sent_the_answers_are_those_of_the_document(unlimited: ServedBento) -> None:
    assert fuzz(unlimited.url, cases=CASES, seed=0) == 0


def test_work_does_not_make_it_take_more_and_more(unlimited: ServedBento) -> None:
    samples, reports = asyncio.run(soak(unlimited.url, unlimited.process.pid, SOAK_SECONDS))
    assert sum(len(report.latencies_seconds) for report in reports) > 100
    assert [report.failures for report in reports if report.failures] == []
    # Memory is still being warmed up in so short a time; whether it stays is for `make soak`.
    assert set(too_much(growth(samples))) <= {"memory, MiB"}
