"""How soon a challenger that raises is taken back, by the real guardrails and the real log."""

from __future__ import annotations

import random
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.arm_metrics import arm_metrics
from analytics.reader import Reader
from core.types import ARM_GROUPS, Failure, Prediction, Version
from core.uuid7 import new_id
from rollout.controller import CHECK_SECONDS, RolloutController
from rollout.policy import Guardrails, RolloutChanges, Schedule
from tests.integration.predictions import PredictionWriter, make_prediction
from tests.integration.rollout.test_rollout import NOW, Machine

PROMISED_SECONDS = 10.0
TEXTS_PER_SECOND = 4
# What the log shipper collects before it writes, twice over.
SHIPPED_AFTER_SECONDS = 0.5
ENOUGH = Guardrails().min_predictions
REVISIONS: dict[Version, str] = {"v1": "v1-revision", "v2": "v2-revision"}


@pytest.mark.parametrize(
    ("share", "raises", "phase_seconds"),
    [(50, 1.0, 0.1), (50, 0.5, 4.9), (10, 1.0, 2.5)],
)
async def test_raising_model_is_taken_back_within_ten_seconds_of_enough_texts(
    engine: AsyncEngine, tmp_path: Path, share: float, raises: float, phase_seconds: float
) -> None:
    machine = Machine(engine, tmp_path)
    controller = RolloutController(
        machine.live, machine.store, partial(arm_metrics, Reader(engine)), lambda: REVISIONS
    )
    schedule = Schedule(steps=(share, 100), hold_seconds=3_600)
    await machine.admin.change(
        "set", base_version=0, author="ana", reason="the October model",
        changes=RolloutChanges(schedule=schedule, guardrails=Guardrails()),
    )  # fmt: skip
    numbers, writer = random.Random(1), PredictionWriter(engine)
    sent, of_challenger = 0, 0
    enough_at: float | None = None
    elapsed = phase_seconds
    while machine.live.version == 1:
        answered: list[Prediction] = []
        failed: list[Failure] = []
        while sent / TEXTS_PER_SECOND <= elapsed - SHIPPED_AFTER_SECONDS:
            at = NOW + timedelta(seconds=sent / TEXTS_PER_SECOND)
            is_challenger = numbers.random() < share / 100
            version: Version = "v2" if is_challenger else "v1"
            made = make_prediction(version=version, created_at=at, endpoint="/predict/ab")
            group = numbers.randrange(ARM_GROUPS)
            if is_challenger and numbers.random() < raises:
                failed.append(Failure(new_id(at), at, made.endpoint, made.model, 1, group))
            else:
                answered.append(replace(made, arm_group=group))
            of_challenger += is_challenger
            if of_challenger == ENOUGH and enough_at is None:
                enough_at = sent / TEXTS_PER_SECOND
            sent += 1
        await writer.write(answered, [], failed)
        await controller.reconcile(NOW + timedelta(seconds=elapsed))
        assert enough_at is None or elapsed - enough_at <= PROMISED_SECONDS
        elapsed += CHECK_SECONDS
    assert enough_at is not None
    assert machine.live.record.action == "guardrail"
    assert machine.live.record.reason.startswith("errors: v2 did not answer")
