"""The demonstration has a past in which every panel of the dashboard has something to show."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import cast

from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.ab.over_time import ab_over_time
from analytics.ab.report import ab_test
from analytics.arm_metrics import arm_metrics
from analytics.drift import drift
from analytics.reader import Reader
from analytics.scope import Scope
from analytics.summary import summary
from analytics.time_range import TimeRange
from core.paths import ROOT
from core.types import VERSIONS, ModelVersion
from loadtest.demo import PREDICTIONS, fill
from rollout.controller import RolloutController
from rollout.live import LivePolicy
from rollout.store import PolicyStore

MODELS = {version: ModelVersion(version, f"of {version}", "openvino-bf16") for version in VERSIONS}
REVISIONS = {version: model.revision for version, model in MODELS.items()}
DAY = timedelta(days=1)


async def test_demonstration_has_a_test_near_its_verdict_a_rollout_and_drift(
    engine: AsyncEngine,
) -> None:
    now = datetime.now(UTC)
    await fill(engine.url, MODELS, now)
    now, reader, store = datetime.now(UTC), Reader(engine), PolicyStore(engine)

    totals = await summary(reader, Scope(TimeRange(now - 15 * DAY, now)))
    assert totals.total_predictions == PREDICTIONS
    today = await summary(reader, Scope(TimeRange(now - timedelta(hours=1), now)))
    assert today.total_predictions > 0

    test = await ab_test(reader, None, now)
    assert test.paired is not None
    assert test.paired.labelled > 300
    assert test.randomised is not None
    verdict = test.randomised.verdict
    assert (verdict.finding, verdict.more_labels is not None) == ("no_difference_yet", True)
    assert verdict.more_labels is not None
    assert 0 < verdict.more_labels.v2 < test.randomised.arms["v2"].labelled
    assert test.randomised.since < now - 12 * DAY
    assert len((await ab_over_time(reader, now)).randomised) > 10

    record, *earlier = await store.history(10)
    policy = record.policy
    assert policy.progress is not None
    assert (policy.progress.step, policy.predict_weights and policy.predict_weights.v2) == (1, 25)
    assert [entry.action for entry in earlier] == ["set", "set", "guardrail", "set", "set"]
    # As the service will judge it: it goes on by itself.
    source = partial(arm_metrics, reader)
    live = cast("LivePolicy", None)
    controller = RolloutController(live, store, source, lambda: REVISIONS)
    results = await controller.evaluate(record, now)
    assert results is not None
    assert {result.state for result in results} == {"pass"}, results

    ranges = TimeRange(now - DAY, now), TimeRange(now - 2 * DAY, now - DAY)
    of_today = await drift(reader, Scope(ranges[0]), ranges[1])
    assert of_today.text_characters.verdict == "significant"
    before = TimeRange(now - 3 * DAY, now - 2 * DAY)
    assert (await drift(reader, Scope(ranges[1]), before)).text_characters.verdict == "stable"


def test_one_command_removes_the_demonstration_and_nothing_else(tmp_path: Path) -> None:
    made = tmp_path / "demo" / "postgres" / "base"
    made.mkdir(parents=True)
    (made / "1").touch()
    kept = tmp_path / "spool"
    kept.mkdir()
    command = [sys.executable, "-m", "scripts.demo", "--remove"]
    # A database of production is of no concern to it.
    environment = {
        "DATA_FOLDER": str(tmp_path),
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/x",
    }
    outputs = [
        subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert outputs == [
        f"{tmp_path / 'demo'} is removed\n",
        "there is no demonstration to remove\n",
    ]
    assert kept.is_dir()
    assert not (tmp_path / "demo").exists()
    (tmp_path / "demo").symlink_to(kept)
    refused = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (refused.returncode, kept.is_dir()) == (1, True)
    assert "is a link; remove it" in refused.stderr
