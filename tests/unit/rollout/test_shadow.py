"""Shadow traffic: the challenger classifies texts after the reply, and no request notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from core.errors import DeadlineExceeded, LogUnavailable, Overloaded, RunnerUnavailable
from core.types import ModelVersion, Prediction, Version
from rollout.policy import RolloutPolicy
from rollout.shadow import MAX_QUEUED, Shadow
from tests.unit.fakes import Setup, counter, prediction
from tests.waiting import until


class Challenger:
    """Records the predictions that it compares; waits at `gate`, and raises `error` if set."""

    def __init__(self) -> None:
        self.predictions: list[Prediction] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def __call__(self, prediction: Prediction) -> None:
        await self.gate.wait()
        self.predictions.append(prediction)
        if self.error is not None:
            raise self.error


@pytest.fixture
async def challenger() -> Challenger:
    return Challenger()


@pytest.fixture
async def shadow(challenger: Challenger) -> AsyncIterator[Shadow]:
    shadow = Shadow(challenger)
    shadow.start()
    yield shadow
    await shadow.stop()


def outcomes() -> dict[str, float]:
    return {
        outcome: counter("shadow_texts_total", outcome=outcome)
        for outcome in ("compared", "failed", "skipped")
    }


async def test_offered_predictions_are_compared_in_order(
    shadow: Shadow, challenger: Challenger
) -> None:
    before = outcomes()
    offered = [prediction(str(number)) for number in range(5)]
    for item in offered:
        shadow.offer(item)
    await until(lambda: outcomes() == before | {"compared": before["compared"] + 5})
    assert challenger.predictions == offered


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RunnerUnavailable("gone"), "failed"),
        (Overloaded("busy"), "skipped"),
        (DeadlineExceeded("a long queue"), "skipped"),
        (ValueError("unexpected"), "failed"),
    ],
)
async def test_failed_comparison_is_counted_and_the_next_goes_on(
    shadow: Shadow, challenger: Challenger, error: Exception, outcome: str
) -> None:
    before = outcomes()
    challenger.error = error
    for _ in range(3):
        shadow.offer(prediction())
    await until(lambda: outcomes() == before | {outcome: before[outcome] + 3})


async def test_full_queue_skips_predictions_and_counts_them(
    shadow: Shadow, challenger: Challenger
) -> None:
    before = outcomes()
    challenger.gate.clear()
    for _ in range(MAX_QUEUED + 50):
        shadow.offer(prediction())
    assert outcomes()["skipped"] == before["skipped"] + 50
    challenger.gate.set()
    await until(lambda: len(challenger.predictions) == MAX_QUEUED)


async def test_only_champion_answers_to_predict_are_shadowed(setup: Setup) -> None:
    setup.policy = RolloutPolicy(shadow_percent=100)
    [first] = await setup.path.predict(["one"], None, "/predict")
    await setup.path.predict(["two"], "v2", "/predict")
    await setup.path.predict(["three"], None, "/predict/batch")
    await setup.path.predict_ab("four", "user-1")
    assert setup.shadowed == [first]


async def test_shadow_share_always_selects_the_same_texts(setup: Setup) -> None:
    setup.policy = RolloutPolicy(shadow_percent=20)
    texts = [f"text {number}" for number in range(500)]
    for _ in range(2):
        for text in texts:
            await setup.path.predict([text], None, "/predict")
    shadowed = [item.text for item in setup.shadowed]
    half = len(shadowed) // 2
    assert shadowed[:half] == shadowed[half:]
    assert 60 <= half <= 140
    setup.shadowed.clear()
    setup.policy = RolloutPolicy(shadow_percent=0)
    await setup.path.predict(texts[:1], None, "/predict")
    assert setup.shadowed == []


async def test_shadow_prediction_is_logged_as_a_comparison(setup: Setup) -> None:
    [answered] = await setup.path.predict(["one"], "v2", "/predict")
    await setup.path.shadow(answered)
    [comparison] = setup.log.comparisons
    assert comparison.v2 == answered
    assert (comparison.v1.endpoint, comparison.v1.version, comparison.v1.text) == (
        "shadow", "v1", "one",
    )  # fmt: skip
    assert setup.v1.calls == [["one"]]


@pytest.mark.parametrize("named", [None, "v1"])
async def test_shadow_is_in_the_arm_of_its_text_as_the_champion_is(
    setup: Setup, named: Version | None
) -> None:
    """Texts of a version that clients name are others than those of the champion's arm."""
    setup.policy = RolloutPolicy(shadow_percent=100)
    [answered] = await setup.path.predict(["one"], named, "/predict")
    await setup.path.shadow(answered)
    [comparison] = setup.log.comparisons
    assert comparison.v2.arm_group == answered.arm_group
    assert (answered.arm_group is None) == (named is not None)


async def test_failing_challenger_is_logged_as_a_failure(setup: Setup) -> None:
    [answered] = await setup.path.predict(["one"], "v1", "/predict")
    setup.v2.fails = True
    with pytest.raises(RunnerUnavailable):
        await setup.path.shadow(answered)
    assert setup.log.failures == [(ModelVersion("v2", "r2", "openvino-bf16"), "shadow", 1)]
    assert setup.log.comparisons == []


async def test_overloaded_challenger_is_not_logged_as_a_failure(setup: Setup) -> None:
    [answered] = await setup.path.predict(["one"], "v1", "/predict")
    setup.v2.overloaded = True
    with pytest.raises(Overloaded):
        await setup.path.shadow(answered)
    assert setup.log.failures == []


async def test_comparison_is_counted_only_once_it_is_recorded(setup: Setup) -> None:
    def counted() -> float:
        return sum(
            counter("model_comparisons_total", agreement=value) for value in ("agree", "disagree")
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
