"""Faults of the models and their rollout: drift, disagreement, roll-backs, refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from analytics.log.segments import segments
from core.postgres import create_engine
from tests.integration.predictions import PredictionWriter, made_of
from tests.prove.alerts.faults import Scene, fault
from tests.served.rollouts import Admin, any_request, requests
from tests.served.stack import RECOVERY_SECONDS
from tests.waiting import until

WEEK_PREDICTIONS = 1_500
POSITIVE_SHARE = 0.95
SETTINGS = {"action": "roll_back", "to_version": 0, "reason": "the next fault"}


@asynccontextmanager
async def administering(scene: Scene) -> AsyncIterator[Admin]:
    """An admin, after whose changes the rollout is as the settings say."""
    async with scene.stack.bento.async_client() as client:
        admin = Admin(client)
        try:
            yield admin
        finally:
            await admin.change(**SETTINGS)
            await admin.holds("v2", scene.v2)


@fault("TrafficDrifted", is_over_soon=False)
async def traffic_turns_negative(scene: Scene) -> AsyncIterator[None]:
    """A week that is stored, and this hour's requests; a new log shipper measures at its start."""
    stack = scene.stack
    engine = create_engine(stack.bento.database_url, pool_size=1, timeout_seconds=10)
    hour, days = datetime.now(UTC) - timedelta(hours=1), timedelta(days=6)
    week = made_of(WEEK_PREDICTIONS, POSITIVE_SHARE, hour - days, days, version="v2")
    await PredictionWriter(engine).write(week)
    await engine.dispose()
    async with stack.bento.async_client() as client:
        for number in range(4):
            texts = [f"A dreadful film, the {number * 100 + part}th." for part in range(100)]
            reply = await client.post("/predict/batch", json={"texts": texts, "version": "v2"})
            assert reply.is_success
    await until(lambda: not segments(stack.spool), RECOVERY_SECONDS)
    [shipper] = stack.workers("analytics.log")
    shipper.kill()
    yield


@fault("VersionsDisagree", is_over_soon=False)
async def challenger_has_its_labels_flipped(scene: Scene) -> AsyncIterator[None]:
    async with administering(scene) as admin, scene.stack.bento.async_client() as client:
        await admin.reload("v2", scene.flipped)
        await admin.holds("v2", scene.flipped)
        for number in range(150):
            body = {"text": f"A good film, the {number}th."}
            assert (await client.post("/predict/ab-compare", json=body)).is_success
        yield


@fault("ChallengerTakenBack")
async def guardrail_takes_a_flipped_challenger_back(scene: Scene) -> AsyncIterator[None]:
    lax = {"min_predictions": 30, "max_latency_ratio": 100, "max_sentiment_drift": 10}
    async with administering(scene) as admin:
        await admin.reload("v2", scene.flipped)
        await admin.holds("v2", scene.flipped)
        schedule = {"steps": [50], "hold_seconds": 3_600}
        await admin.change(changes={"schedule": schedule, "guardrails": lax, "shadow_percent": 100})
        async with requests(scene.stack.bento, any_request, clients=4):
            yield
        status = await admin.status()
        assert status["action"] == "guardrail"
        assert status["reason"].startswith("agreement: both versions agree on ")


@fault("ModelChangeRefused")
async def model_fails_its_golden_set(scene: Scene) -> AsyncIterator[None]:
    async with administering(scene) as admin:
        await admin.reload("v2", scene.mistaken)
        yield
        assert (await admin.model("v2"))["load_error"].startswith(f"{scene.mistaken}: ")
