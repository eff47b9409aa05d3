"""A service with a past: a fortnight of traffic, an A/B test, a rollout and a drift episode.

It lies in databases of its own, so that no real prediction meets an invented one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import bentoml
from sqlalchemy import URL

from analytics.review.draw import ReviewDraws
from analytics.time_range import TimeRange
from core.postgres import opened_engine
from core.settings import Settings
from core.types import VERSIONS, Endpoint, ModelVersion, Split, Version
from loadtest.bench.seed_predictions import Mood, Story, write_history
from rollout.changes import Action, rolled_back, stepped, with_changes
from rollout.policy import Guardrails, RolloutChanges, RolloutPolicy, Schedule, Weights
from rollout.record import PolicyRecord
from rollout.store import PolicyStore

PREDICTIONS = 60_000
SPAN = timedelta(days=14)
SALT = "demo"
# For an A/B test the engine makes no difference.
ENGINE = "openvino-bf16"
ADMIN = "key ana"
GUARDRAILS = "guardrails"
# With this seed and these shares of labels, the A/B test is near its verdict.
SEED = 6
LABELLED: Mapping[Endpoint, float] = {"/predict/ab": 0.25, "/predict/ab-compare": 0.2}
LABELLED_OTHERS = 0.01
# Some clients name a version themselves.
NAMED_V2_SHARE = 0.1
# Hours before now: a campaign brought longer and less friendly texts.
EPISODE = timedelta(hours=22), timedelta(hours=3)
QUEUE_SPAN = timedelta(days=1)
EPISODE_MOOD = Mood(positive_share=0.3, length_factor=1.9)


async def fill(url: URL, models: Mapping[Version, ModelVersion], now: datetime) -> None:
    """Write the history and the policies into an empty database with the newest schema."""
    policies = policies_until(now)
    await write_history(url, PREDICTIONS, SPAN, SEED, story(models, policies, now))
    async with opened_engine(url, timeout_seconds=60) as engine:
        for record in policies:
            await PolicyStore(engine).append(record)
        # So that the dashboard has something to label.
        for version in VERSIONS:
            await ReviewDraws(engine).draw(version, TimeRange(now - QUEUE_SPAN, now), now)


def saved_models(settings: Settings) -> dict[Version, ModelVersion]:
    """The models that the service will serve, so that its A/B test goes on with the past one."""
    found = {}
    for version in VERSIONS:
        metadata = bentoml.models.get(settings.model_tag(version)).info.metadata
        found[version] = ModelVersion(version, str(metadata["revision"]), ENGINE)
    return found


def policies_until(now: datetime) -> list[PolicyRecord]:
    """A rollout that was taken back, and one that is under way."""
    history = _Policies(now)
    history.set(
        timedelta(days=13),
        RolloutChanges(salt=SALT, ab_weights=Weights(v1=50, v2=50), guardrails=Guardrails()),
        "Compare v2 with v1 on half of the subjects",
    )
    first = Schedule(steps=(10, 50, 100), hold_seconds=86_400, routes=("/predict",))
    history.set(timedelta(days=10), RolloutChanges(schedule=first), "v2 to a tenth of the texts")
    history.add(
        timedelta(days=9, hours=14),
        "guardrail",
        "latency: v2 takes longer than 49 ms, 1.3 times the 38 ms (p95) of v1, for 31.4% of 412 "
        "computed answers; 5% are allowed",
        rolled_back(history.policy),
        author=GUARDRAILS,
    )
    history.set(
        timedelta(days=9, hours=2),
        RolloutChanges(ab_weights=Weights(v1=50, v2=50)),
        "A backup took the cores; the A/B test goes on",
    )
    second = Schedule(
        steps=(5, 25, 50, 100), hold_seconds=172_800, routes=("/predict",), promote=True
    )
    history.set(
        timedelta(hours=78), RolloutChanges(schedule=second), "v2 once more, in smaller steps"
    )
    at = now - timedelta(hours=30)
    history.add(
        timedelta(hours=30),
        "next_step",
        "step 1 of 4 held, and every guardrail passed",
        stepped(history.policy, at),
        author=GUARDRAILS,
    )
    return history.records


class _Policies:
    """Policies one after another, each so long before `now`."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self.policy = RolloutPolicy()
        self.records: list[PolicyRecord] = []

    def set(self, before_now: timedelta, changes: RolloutChanges, reason: str) -> None:
        policy = with_changes(self.policy, changes, self._now - before_now)
        self.add(before_now, "set", reason, policy)

    def add(
        self,
        before_now: timedelta,
        action: Action,
        reason: str,
        policy: RolloutPolicy,
        author: str = ADMIN,
    ) -> None:
        number, at = len(self.records) + 1, self._now - before_now
        self.policy = policy
        self.records.append(PolicyRecord(number, at, author, action, reason, policy))


def story(
    models: Mapping[Version, ModelVersion], policies: Sequence[PolicyRecord], now: datetime
) -> Story:
    """The history that fits the policies: each text gets the version that they give it."""
    begins, ends = (now - before for before in EPISODE)
    shares = [(record.created_at, _share(record.policy)) for record in policies]

    def v2_share(endpoint: Endpoint, time: datetime) -> float:
        if endpoint != "/predict":
            return NAMED_V2_SHARE
        return next((share for since, share in reversed(shares) if since <= time), 0.0)

    return Story(
        models=models,
        split=Split(SALT, 50.0),
        labelled_share=lambda endpoint: LABELLED.get(endpoint, LABELLED_OTHERS),
        v2_share=v2_share,
        mood=lambda time: EPISODE_MOOD if begins <= time < ends else Mood(),
    )


def _share(policy: RolloutPolicy) -> float:
    return policy.predict_weights.v2 / 100 if policy.predict_weights else 0.0
