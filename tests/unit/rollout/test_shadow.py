"""The challenger is asked behind the back of a request, and nothing of that is to be noticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from core.errors import DeadlineExceeded, LogUnavailable, Overloaded, RunnerUnavailable
from core.types import ModelVersion, Prediction
from rollout.policy import RolloutPolicy
from rollout.shadow import MAX_WAITING, Shadow
from tests.unit.fakes import Setup, counter, prediction
from tests.waiting import until


class Asked:
    """Remembers what it was asked; waits and fails if it is told to."""

    def __init__(self) -> None:
        self.predictions: list[Prediction] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def __call__(self, of: Prediction) -> None:
        await self.gate.wait()
        self.predictions.append(of)
        if self.error is not None:
            raise self.error


@pytest.fixture
async def asked() -> Asked:
    return Asked()


@pytest.fixture
async def shadow(asked: Asked) -> AsyncIterator[Shadow]:
    made = Shadow(asked)
    made.start()
    yield made
    await made.stop()


def outcomes() -> dict[str, float]:
    return {
        outcome: counter("shadow_texts_total", outcome=outcome)
        for outcome in ("compared", "failed", "skipped")
    }


async def test_what_is_offered_is_asked(shadow: Shadow, asked: Asked) -> None:
    before = outcomes()
    offered = [prediction(str(number)) for number in range(5)]
    for one in offered:
        shadow.offer(one)
    await until(lambda: outcomes() == before | {"compared": before["compared"] + 5})
    assert asked.predictions == offered


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RunnerUnavailable("gone"), "failed"),
        (Overloaded("busy"), "skipped"),
        (DeadlineExceeded("a long queue"), "skipped"),
        (ValueError("nobody foresaw"), "failed"),
    ],
)
async def test_a_failure_is_counted_and_ends_nothing(
    shadow: Shadow, asked: Asked, error: Exception, outcome: str
) -> None:
    before = outcomes()
    asked.error = error
    for _ in range(3):
        shadow.offer(prediction())
    await until(lambda: outcomes() == before | {outcome: before[outcome] + 3})


async def test_more_than_it_can_ask_is_let_go(shadow: Shadow, asked: Asked) -> None:
    before = outcomes()
    asked.gate.clear()
    for _ in range(MAX_WAITING + 50):
        shadow.offer(prediction())
    assert outcomes()["skipped"] == before["skipped"] + 50
    asked.gate.set()
    await until(lambda: len(asked.predictions) == MAX_WAITING)


async def test_only_what_the_champion_answers_to_predict_is_shadowed(setup: Setup) -> None:
    setup.policy = RolloutPolicy(shadow_percent=100)
    [first] = await setup.path.predict(["one"], None, "/predict")
    await setup.path.predict(["two"], "v2", "/predict")
    await setup.path.predict(["three"], None, "/predict/batch")
    await setup.path.predict_ab("four", "user-1")
    assert setup.shadowed == [first]


async def test_a_share_of_the_texts_is_shadowed_always_the_same(setup: Setup) -> None:
    setup.policy = RolloutPolicy(shadow_percent=20)
    texts = [f"text {number}" for number in range(500)]
    for _ in range(2):
        for text in texts:
            await setup.path.predict([text], None, "/predict")
    shadowed = [one.text for one in setup.shadowed]
    half = len(shadowed) // 2
    assert shadowed[:half] == shadowed[half:]
    assert 60 <= half <= 140
    setup.shadowed.clear()
    setup.policy = RolloutPolicy(shadow_percent=0)
    await setup.path.predict(texts[:1], None, "/predict")
    assert setup.shadowed == []


async def test_a_shadow_is_logged_as_a_comparison(setup: Setup) -> None:
    [answered] = await setup.path.predict(["one"], "v2", "/predict")
    await setup.path.shadow(answered)
    [comparison] = setup.log.comparisons
    assert comparison.v2 == answered
    assert (comparison.v1.endpoint, comparison.v1.version, comparison.v1.text) == (
        "shadow", "v1", "one",
    )  # fmt: skip
    assert setup.v1.calls == [["one"]]


async def test_a_challenger_that_fails_in_the_shadow_has_failed(setup: Setup) -> None:
    [answered] = await setup.path.predict(["one"], "v1", "/predict")
    setup.v2.fails = True
    with pytest.raises(RunnerUnavailable):
        await setup.path.shadow(answered)
    assert setup.log.failures == [(ModelVersion("v2", "r2", "fake"), "shadow", 1)]
    assert setup.log.comparisons == []


async def test_a_challenger_without_time_has_not(setup: Setup) -> None:
    [answered] = await setup.path.predict(["one"], "v1", "/predict")
    setup.v2.overloaded = True
    with pytest.raises(Overloaded):
        await setup.path.shadow(answered)
    assert setup.log.failures == []


async def test_a_comparison_is_counted_when_it_is_recorded(setup: Setup) -> None:
    def counted() -> float:
        return sum(
            counter("model_comparisons_total", agreement=said) for said in ("agree", "disagree")
        )

    before = counted()
    [answered] = await setup.path.predict(["one"], "v1", "/predict")
    setup.log.refuses = True
    with pytest.raises(LogUnavailable):
        await setup.path.compare("two")
    with pytest.raises(LogUnavailable):
        await setup.path.shadow(answered)
    assert counted() == before
    setup.log.refuses = False
    await setup.path.compare("two")
    await setup.path.shadow(answered)
    assert counted() == before + 2
