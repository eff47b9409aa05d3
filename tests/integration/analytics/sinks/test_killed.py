"""Whatever point a shipper is killed at, each prediction is in one file, once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import URL

from core.paths import ROOT
from tests.database import fetch
from tests.integration.analytics.sinks.conftest import parquet_ids
from tests.integration.analytics.sinks.receiver import receiver


@pytest.mark.timeout(1_800)  # the long form
def test_a_shipper_that_is_killed_at_every_point_hands_each_prediction_on(
    sink_database: URL, tmp_path: Path, thorough: bool
) -> None:
    with receiver() as received:
        ran = subprocess.run(
            [
                *(sys.executable, "-m", "tests.integration.analytics.sinks.killed"),
                *(str(tmp_path / "spools"), "1" if thorough else "45"),
            ],
            cwd=ROOT,
            env=os.environ
            | {
                "DATABASE_URL": sink_database.render_as_string(hide_password=False),
                "DATA_FOLDER": str(tmp_path),
                "LOG_EVENTS_URL": received.url,
                "LOG_PARQUET_URL": str(tmp_path / "parquet"),
            },
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr
    killed = int(ran.stdout.split()[-1])
    assert killed >= (50 if thorough else 1)
    stored = [str(row["id"]) for row in fetch(sink_database, "SELECT id FROM predictions")]
    assert len(stored) == 12 * (killed + 1)
    assert Counter(parquet_ids(tmp_path / "parquet")) == Counter(stored)
    assert set(received.ids) == set(stored)
    left = [path.name for path in (tmp_path / "parquet").rglob("*") if path.name.endswith(".new")]
    assert left == []
