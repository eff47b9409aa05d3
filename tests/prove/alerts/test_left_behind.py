"""A service that ends in an outage leaves predictions: an alert fires, and a command ships them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from core.paths import ROOT
from tests.database import scalar
from tests.prove.alerts.prometheus import Prometheus, prometheus
from tests.served.stack import Stack, stack_in, stopped
from tests.waiting import wait_until

FIRING_SECONDS = 60.0


def test_service_that_ends_in_an_outage_leaves_predictions_that_an_alert_tells_of(
    bentoml_home: Path, tmp_path: Path
) -> None:
    def hurry(rule: dict[str, Any]) -> None:
        if rule.get("alert") == "PredictionsLeftBehind":
            rule["for"] = "2s"

    with (
        stack_in(tmp_path, bentoml_home, LOG_DRAIN_SECONDS="2") as stack,
        prometheus(tmp_path / "prometheus", stack.bento.url, hurry=hurry) as watching,
    ):
        leave_behind(stack, watching)
        ship(stack)


def leave_behind(stack: Stack, watching: Prometheus) -> None:
    """Predict while PostgreSQL hangs, and stop the service."""
    overdue = "prediction_log_overdue_predictions"
    wait_until(lambda: watching.query(f"{overdue} == 0"), FIRING_SECONDS)
    with stopped(stack.postmaster()):
        with stack.bento.client() as client:
            batch = {"texts": [f"Left behind, {number}." for number in range(100)]}
            assert client.post("/predict/batch", json=batch).status_code == 200
        wait_until(lambda: watching.query(f"{overdue} == 100"), FIRING_SECONDS)
        assert "PredictionsLeftBehind" not in watching.alerts()
        stack.bento.process.terminate()
        assert stack.bento.process.wait(FIRING_SECONDS) == 0
        log = stack.bento.log.read_text(encoding="utf-8")
        assert f"stopped with 100 predictions left in {stack.spool}" in log
        wait_until(
            lambda: watching.alerts().get("PredictionsLeftBehind") == "firing", FIRING_SECONDS
        )
        [sample] = watching.query('ALERTS{alertname="PredictionsLeftBehind"}')
        assert sample["metric"]["spool"] == (stack.spool / "spool.id").read_text().strip()


def ship(stack: Stack) -> None:
    url = stack.bento.database_url.render_as_string(hide_password=False)
    shipped = subprocess.run(
        [sys.executable, "-m", "scripts.cli", "log", "ship", str(stack.spool), "--json"],
        cwd=ROOT, env=os.environ | {"DATABASE_URL": url}, capture_output=True, check=False,
    )  # fmt: skip
    assert shipped.returncode == 0, shipped.stderr
    result = json.loads(shipped.stdout)
    assert (result["stored"], result["left"], result["rejected_lines"]) == (100, 0, 0)
    assert scalar(stack.bento.database_url, "SELECT count(*) FROM predictions") == 100
