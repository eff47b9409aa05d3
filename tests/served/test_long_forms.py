"""Short forms of what `make fuzz` and `make soak` do for long."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import psutil
import pytest

from core.paths import ROOT
from loadtest.bench.fuzz import fuzz
from loadtest.bench.soak import growth, soak, too_much
from tests.processes import command_of
from tests.serving import ServedBento
from tests.waiting import wait_until

CASES = 150
SOAK_SECONDS = 12.0


def test_fuzzed_requests_get_documented_answers(unlimited: ServedBento) -> None:
    assert fuzz(unlimited.url, cases=CASES, seed=0) == 0


@pytest.mark.alone
def test_short_soak_grows_no_files_or_connections(unlimited: ServedBento) -> None:
    samples, reports = asyncio.run(soak(unlimited.url, unlimited.process.pid, SOAK_SECONDS))
    assert sum(len(report.latencies_seconds) for report in reports) > 100
    assert [report.failures for report in reports if report.failures] == []
    # Memory is still being warmed up in so short a time; whether it stays is for `make soak`.
    assert set(too_much(growth(samples))) <= {"memory, MiB"}


def test_sigterm_to_fuzz_ends_its_processes(unlimited: ServedBento) -> None:
    run = subprocess.Popen(
        [sys.executable, "-m", "scripts.fuzz", "--url", unlimited.url],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    this = psutil.Process(run.pid)
    try:
        wait_until(
            lambda: any("schemathesis.cli" in command_of(child) for child in this.children()),
            seconds=60,
        )
        started = this.children(recursive=True)
    finally:
        run.send_signal(signal.SIGTERM)
        try:
            run.wait(60)
        finally:
            run.kill()  # one that has ended is left alone
    wait_until(lambda: not any(process.is_running() for process in started), seconds=10)
