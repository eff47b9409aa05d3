"""The total of a counter over all processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core import metrics
from core.paths import ROOT


def in_a_process(folder: Path, statement: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"from core import metrics; {statement}"],
        cwd=ROOT,
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_total_includes_processes_that_have_ended(tmp_path: Path) -> None:
    for hits in (2, 3):
        in_a_process(tmp_path, f"metrics.cache_hits.inc({hits})")
    assert in_a_process(tmp_path, "print(metrics.total('cache_hits_total'))") == "5.0"


def test_total_counts_in_a_single_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    before = metrics.total("cache_misses_total")
    metrics.cache_misses.inc(4)
    assert metrics.total("cache_misses_total") - before == 4


def test_total_of_an_unknown_counter_is_zero() -> None:
    assert metrics.total("no_such_total") == 0
