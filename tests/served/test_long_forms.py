"""Short forms of what `make fuzz` and `make soak` do for long."""

from __future__ import annotations

import asyncio

import pytest

from loadtest.bench.fuzz import fuzz
from loadtest.bench.soak import growth, reasons, soak, too_much
from tests.processes import assert_sigterm_to_fuzz_ends_all
from tests.serving import ServedBento

CASES = 60
# Without the boundaries of all values, `coverage`, which tests/prove/faults tries.
PHASES = ("examples", "fuzzing", "stateful")
SOAK_SECONDS = 12.0


def test_fuzzed_requests_get_documented_answers(unlimited: ServedBento) -> None:
    assert fuzz(unlimited.url, cases=CASES, seed=0, phases=PHASES) == 0


@pytest.mark.alone
def test_short_soak_grows_no_files_or_connections(unlimited: ServedBento) -> None:
    samples, reports = asyncio.run(soak(unlimited.url, unlimited.process.pid, SOAK_SECONDS))
    assert sum(len(report.latencies_seconds) for report in reports) > 100
    # Where the machine stands still for a second, some are shed.
    assert {status for report in reports for status in report.failures} <= {"503"}
    # Memory is still being warmed up in so short a time; whether it stays is for `make soak`.
    assert set(too_much(growth(samples))) <= {"memory, MiB"}


def test_soak_tells_why_requests_failed(unlimited: ServedBento) -> None:
    with unlimited.client() as client:
        late = {"X-Request-Timeout-Ms": "1"}
        texts = [f"This one has too little time. {number}" for number in range(100)]
        reply = client.post("/predict/batch", json={"texts": texts}, headers=late)
    assert reply.status_code == 504
    told = reasons(unlimited.url, unlimited.log)
    assert any(line.startswith("timed_out_requests_total{") for line in told)
    assert any('status="504"' in line for line in told)


def test_sigterm_to_fuzz_ends_its_processes(unlimited: ServedBento) -> None:
    assert_sigterm_to_fuzz_ends_all("--url", unlimited.url)
