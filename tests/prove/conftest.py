"""Hands the results of a proof to `sentiment prove`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from loadtest.bench.proof_record import RESULTS_FILE, Result


class Recorder:
    """A pytest plugin: the worst outcome of each test, its seconds, and what it measured."""

    def __init__(self) -> None:
        self.results: dict[str, Result] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = report.nodeid.partition("::")[2]
        before = self.results.get(test, Result(test, "passed", 0.0))
        outcome = before.outcome if report.passed else report.outcome
        measured = ", ".join(f"{name} {value}" for name, value in report.user_properties)
        self.results[test] = Result(test, outcome, before.seconds + report.duration, measured)

    def pytest_sessionfinish(self) -> None:
        if file := os.environ.get(RESULTS_FILE):
            Path(file).write_text(json.dumps(list(self.results.values())), encoding="utf-8")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Recorder())
