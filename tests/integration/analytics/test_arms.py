"""The evidence of the guardrails: of both versions, the texts that either might have answered."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.arm_metrics import arm_metrics
from analytics.reader import Reader
from core.keyed_hash import text_digest
from core.types import (
    ARM_GROUPS,
    PREDICT_ENDPOINTS,
    SENTIMENTS,
    VERSIONS,
    Comparison,
    Endpoint,
    Failure,
    ModelVersion,
    Prediction,
    Sentiment,
    Version,
)
from core.uuid7 import new_id
from rollout.evidence import evidence
from rollout.guardrails import evaluate
from rollout.policy import Guardrails, RolloutPolicy, Weights
from rollout.record import PolicyRecord
from stats.arm_metrics import (
    LATENCY_CELLS,
    LATENCY_OFFSET,
    OUTCOMES,
    EvidenceQuery,
    Stratum,
    compared_latency_ms,
)
from stats.histogram import LATENCY_MS
from tests.integration.predictions import PredictionWriter, make_prediction

START = datetime(2026, 3, 1, tzinfo=UTC)
REVISIONS: dict[Version, str] = {version: f"{version}-revision" for version in VERSIONS}


def assigned(
    group: int | None, sentiment: Sentiment, at: datetime, version: Version = "v1", **of: Any
) -> Prediction:
    scores: dict[Sentiment, float] = dict.fromkeys(SENTIMENTS, 0.1) | {sentiment: 0.8}
    made = make_prediction(version=version, scores=scores, created_at=at, **of)
    return replace(made, arm_group=group)


def failure(group: int | None, of: Prediction, texts: int) -> Failure:
    at = of.created_at
    return Failure(new_id(at), at, of.endpoint, of.model, texts, group)


async def test_any_window_equals_a_plain_count(engine: AsyncEngine) -> None:
    numbers = random.Random(5)
    made: list[Prediction] = []
    failures: list[Failure] = []
    for _ in range(1_500):
        prediction = assigned(
            numbers.choice([None, *range(ARM_GROUPS)]),
            numbers.choice(SENTIMENTS),
            START + timedelta(seconds=numbers.uniform(0, 180_000)),
            numbers.choice(VERSIONS),
            endpoint=numbers.choice(PREDICT_ENDPOINTS),
            cache_hit=numbers.random() < 0.3,
            latency_ms=numbers.choice([0.0, 1e9, numbers.lognormvariate(2, 2)]),
            token_count=numbers.choice([1, 31, 32, 33, 512, 9_000]),
        )
        made.append(prediction)
        if numbers.random() < 0.1:
            group = numbers.choice([None, *range(ARM_GROUPS)])
            failures.append(failure(group, prediction, numbers.randint(1, 9)))
    writer = PredictionWriter(engine)
    for begin in range(0, 1_500, 500):  # late rows in every batch
        await writer.write(made[begin : begin + 500], [], failures[begin // 10 : begin // 10 + 50])
    await writer.write(made[:500], [], failures)  # as after a lost reply
    both: tuple[Endpoint, ...] = ("/predict", "/predict/ab")
    strata = Stratum(both, both), Stratum(("/predict",), ("shadow",))
    for _ in range(12):
        ends = sorted(START + timedelta(seconds=numbers.uniform(-999, 190_000)) for _ in range(4))
        query = EvidenceQuery(strata, ends[0], ends[2], ends[1], ends[3])
        found = await arm_metrics(Reader(engine), query, "v1", REVISIONS)
        for stratum, counts in zip(strata, found.strata, strict=True):
            for window, since, until in (
                (counts.step, ends[0], ends[2]), (counts.lately, ends[1], ends[3]),
            ):  # fmt: skip
                for version in VERSIONS:
                    routes = stratum.champion if version == "v1" else stratum.challenger
                    outcomes: Counter[int] = Counter()
                    latencies: Counter[int] = Counter()
                    for row in made:
                        if (
                            row.arm_group is None or row.endpoint not in routes
                            or row.version != version or not since <= row.created_at < until
                        ):  # fmt: skip
                            continue
                        place = SENTIMENTS.index(row.sentiment)
                        outcomes[row.arm_group * OUTCOMES + place] += 1
                        if not row.cache_hit:
                            compared_ms = compared_latency_ms(row.latency_ms, row.token_count)
                            bin_ = LATENCY_MS.bin_of(compared_ms) + LATENCY_OFFSET
                            latencies[row.arm_group * LATENCY_CELLS + bin_] += 1
                    for lost in failures:
                        if (
                            lost.arm_group is not None and lost.endpoint in routes
                            and lost.model.version == version and since <= lost.created_at < until
                        ):  # fmt: skip
                            outcomes[lost.arm_group * OUTCOMES + OUTCOMES - 1] += lost.texts
                    assert dict(window[version].outcomes) == outcomes
                    assert dict(window[version].latencies) == latencies


JOB: list[tuple[Endpoint, Sentiment]] = [
    ("/predict/batch", "negative"), ("/predict", "negative"), ("/predict/ab-compare", "neutral"),
    ("/predict/ab", "neutral"), ("/predict/batch", "positive"),
]  # fmt: skip


@pytest.mark.parametrize(("endpoint", "sentiment"), JOB)
async def test_identical_challenger_is_kept_beside_a_job_of_the_champion(
    engine: AsyncEngine, endpoint: Endpoint, sentiment: Sentiment
) -> None:
    """Of a batch, of a version that the request names, or of an override: no version was chosen."""
    numbers = random.Random(3)
    writer = PredictionWriter(engine)
    routed = [
        assigned(
            numbers.randrange(ARM_GROUPS), numbers.choice(SENTIMENTS),
            START + timedelta(seconds=number / 4), numbers.choice(VERSIONS), endpoint="/predict/ab",
        )
        for number in range(800)
    ]  # fmt: skip
    job = [
        assigned(None, sentiment, START + timedelta(seconds=number / 10), endpoint=endpoint,
            latency_ms=2.0)
        for number in range(600)
    ]  # fmt: skip
    await writer.write(routed + job, [], [failure(None, job[0], 50)])
    policy = RolloutPolicy(ab_weights=Weights(v1=50, v2=50), guardrails=Guardrails())
    record = PolicyRecord(1, START, "ana", "set", "half", policy)
    query = evidence(record, START + timedelta(seconds=200))
    found = await arm_metrics(Reader(engine), query, "v1", REVISIONS)
    assert sum(counts.texts for counts in found.strata[0].step.values()) == 800
    assert {result.state for result in evaluate("v1", Guardrails(), found)} == {"pass"}


@pytest.mark.parametrize(("slower", "state"), [(1.0, "pass"), (2.0, "fail")])
async def test_challenger_that_gets_longer_texts_is_judged_by_their_tokens(
    engine: AsyncEngine, slower: float, state: str
) -> None:
    """A client sends the challenger's subjects texts that are many times as long."""
    numbers = random.Random(5)

    def made(number: int, version: Version, factor: float) -> Prediction:
        longest = 500 if version == "v2" and number % 3 else 60
        tokens = numbers.randint(5, longest)
        return assigned(
            numbers.randrange(ARM_GROUPS), numbers.choice(SENTIMENTS),
            START + timedelta(seconds=number / 10), version, endpoint="/predict/ab",
            token_count=tokens, latency_ms=factor * numbers.uniform(0.9, 1.1) * (8 + 0.25 * tokens),
        )  # fmt: skip

    texts = [
        made(number, version, slower if version == "v2" else 1.0)
        for number in range(800) for version in VERSIONS
    ]  # fmt: skip
    await PredictionWriter(engine).write(texts, [])
    policy = RolloutPolicy(ab_weights=Weights(v1=50, v2=50), guardrails=Guardrails())
    record = PolicyRecord(1, START, "ana", "set", "half", policy)
    query = evidence(record, START + timedelta(seconds=200))
    found = await arm_metrics(Reader(engine), query, "v1", REVISIONS)
    states = {result.name: result.state for result in evaluate("v1", Guardrails(), found)}
    assert states["latency"] == state


async def test_agreement_is_that_of_shadow_traffic_of_these_weights_since_the_step(
    engine: AsyncEngine,
) -> None:
    writer = PredictionWriter(engine)

    async def compare(
        text: str, at: datetime, said: Sequence[Sentiment], endpoints: Sequence[Endpoint]
    ) -> None:
        pair = [
            replace(assigned(None, sentiment, at, version, endpoint=endpoint, text=text),
                text_sha256=text_digest(text))
            for version, sentiment, endpoint in zip(VERSIONS, said, endpoints, strict=True)
        ]  # fmt: skip
        if text.startswith("before a reload"):
            old = ModelVersion("v2", "an older revision", "fake")
            pair[1] = replace(pair[1], model=old)
        await writer.write(pair, [Comparison(new_id(at), at, *pair)])

    same: list[Sentiment] = ["positive", "positive"]
    differ: list[Sentiment] = ["positive", "negative"]
    shadow: list[list[Endpoint]] = [["/predict", "shadow"], ["shadow", "/predict"]]
    chosen: list[Endpoint] = ["/predict/ab-compare", "/predict/ab-compare"]
    later = START + timedelta(seconds=100)
    for number in range(20):
        await compare(f"chosen by a client {number}", later, differ, chosen)
        await compare(f"before the step {number}", START, differ, shadow[0])
        await compare(f"before a reload {number}", later, differ, shadow[0])
        await compare("again and again", later, differ, shadow[0])
        await compare(f"drawn {number}", later, differ if number < 3 else same, shadow[number % 2])
    span = EvidenceQuery(
        (), START + timedelta(seconds=50), START + timedelta(seconds=200), later, later
    )
    found = await arm_metrics(Reader(engine), span, "v1", REVISIONS)
    assert (found.compared, found.agreed) == (21, 17)
