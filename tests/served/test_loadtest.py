"""`make loadtest` against a served Bento with its ordinary rate limits, and beside the baseline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import URL

from core.paths import ROOT
from core.types import VERSIONS
from loadtest.bench.baseline import Comparison
from loadtest.bench.servers import Site, baseline
from loadtest.headless import FIGURES, REPORT, run_locust
from loadtest.outcome import Outcome
from tests.serving import ServedBento
from tests.store import saved_model

USERS = 100
SECONDS = 20
BASELINE_SECONDS = 10
SHARES = {
    "/predict": 0.7,
    "/predict/ab-compare": 0.2,
    "/analytics/summary": 0.05,
    "/analytics/sentiment-distribution": 0.05,
}


@pytest.mark.alone
def test_100_users_get_right_answers_faster_than_from_the_baseline(
    served: ServedBento,
    bentoml_home: Path,
    postgres_server: URL,
    redis_server: str,
    tmp_path: Path,
) -> None:
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
    # Each asks every two seconds.
    assert ours.total.answers == pytest.approx(USERS * SECONDS / 2, rel=0.2)
    shares = {each.name: each.answers / ours.total.answers for each in ours.endpoints}
    assert shares == pytest.approx(SHARES, abs=0.06)
    assert (tmp_path / REPORT).is_file()

    models = {version: saved_model(bentoml_home, version) for version in VERSIONS}
    where = Site(tmp_path, models, postgres_server, redis_server)
    with baseline(where) as plain:
        plain.wait_until_ready()
        theirs = run_locust(
            plain.url, users=USERS, seconds=BASELINE_SECONDS, folder=tmp_path / "baseline"
        )
    assert Comparison(ours, theirs).shortcomings() == []
