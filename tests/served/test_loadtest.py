"""`make loadtest` against a served Bento with its ordinary rate limits.

How much faster it is than the baseline is measured by `make loadtest-baseline`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.paths import ROOT
from loadtest.headless import FIGURES, REPORT
from loadtest.outcome import Outcome
from tests.serving import ServedBento

USERS = 100
SECONDS = 12
SHARES = {
    "/predict": 0.7,
    "/predict/ab-compare": 0.2,
    "/analytics/summary": 0.05,
    "/analytics/sentiment-distribution": 0.05,
}


@pytest.mark.alone
def test_100_users_get_right_answers(served: ServedBento, tmp_path: Path) -> None:
    run = subprocess.run(
        [
            *(sys.executable, "-m", "scripts.loadtest", "--host", served.url),
            *("--users", str(USERS), "--seconds", str(SECONDS), "--folder", str(tmp_path)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    ours = Outcome.read(tmp_path / FIGURES)
    assert (ours.total.failures, ours.failures) == (0, {})
    # Each asks every two seconds, and less if the machine stands still.
    assert USERS <= ours.total.answers <= 1.2 * USERS * SECONDS / 2
    shares = {each.name: each.answers / ours.total.answers for each in ours.endpoints}
    assert shares == pytest.approx(SHARES, abs=0.06)
    assert (tmp_path / REPORT).is_file()
