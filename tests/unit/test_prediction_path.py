"""The one prediction path, branch by branch."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from cache.keys import cache_key
from errors import RunnerUnavailable
from prediction_path import PredictionPath
from tests.unit.fakes import FakeCache, FakeLog, FakeRunner, classification


class Setup:
    """A path with fakes around it."""

    def __init__(self) -> None:
        self.v1, self.v2 = FakeRunner("v1"), FakeRunner("v2", "r2")
        self.cache, self.log = FakeCache(), FakeLog()
        self.path = PredictionPath({"v1": self.v1, "v2": self.v2}, self.cache, self.log)


@pytest.fixture
def setup() -> Setup:
    return Setup()


def counter(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_a_miss_is_classified_stored_and_recorded(setup: Setup) -> None:
    [prediction] = await setup.path.predict(["good film"], "v1", "/predict")
    assert prediction.classification == classification("good film")
    assert (prediction.cache_hit, prediction.version) == (False, "v1")
    assert (prediction.endpoint, prediction.engine) == ("/predict", "fake")
    assert prediction.id.version == 7
    assert prediction.created_at.utcoffset() == timedelta(0)
    assert prediction.latency_ms > 0
    assert setup.v1.calls == [["good film"]]
    assert setup.cache.content == {cache_key("v1", "r1", "good film"): classification("good film")}
    assert setup.log.predictions == [prediction]


async def test_a_hit_asks_no_runner_and_is_recorded(setup: Setup) -> None:
    await setup.path.predict(["good film"], "v1", "/predict")
    [prediction] = await setup.path.predict(["good film"], "v1", "/predict")
    assert prediction.cache_hit is True
    assert prediction.classification == classification("good film")
    assert len(setup.v1.calls) == 1
    assert len(setup.cache.stores) == 1
    assert len(setup.log.predictions) == 2


async def test_a_batch_is_one_lookup_one_call_and_one_store(setup: Setup) -> None:
    await setup.path.predict(["known"], "v1", "/predict")
    texts = ["new one", "known", "newer still", "new one"]
    predictions = await setup.path.predict(texts, "v1", "/predict/batch")
    assert [p.text for p in predictions] == texts
    assert [p.cache_hit for p in predictions] == [False, True, False, False]
    assert [p.classification for p in predictions] == [classification(text) for text in texts]
    assert len({p.id for p in predictions}) == 4
    assert setup.v1.calls[1:] == [["new one", "newer still"]]
    assert len(setup.cache.lookups) == 2
    assert len(setup.cache.stores) == 2


async def test_versions_do_not_share_answers(setup: Setup) -> None:
    [v1] = await setup.path.predict(["same"], "v1", "/predict")
    [v2] = await setup.path.predict(["same"], "v2", "/predict")
    assert (v1.cache_hit, v2.cache_hit) == (False, False)
    assert (setup.v1.calls, setup.v2.calls) == ([["same"]], [["same"]])


async def test_a_failed_runner_leaves_nothing_behind(setup: Setup) -> None:
    setup.v1.fails = True
    with pytest.raises(RunnerUnavailable):
        await setup.path.predict(["a", "b"], "v1", "/predict/batch")
    assert setup.log.predictions == []
    assert setup.cache.content == {}
    setup.v1.fails = False
    assert len(await setup.path.predict(["a", "b"], "v1", "/predict/batch")) == 2


async def test_equal_texts_in_flight_are_classified_once(setup: Setup) -> None:
    setup.v1.gate.clear()
    requests = [
        asyncio.create_task(setup.path.predict(["same"], "v1", "/predict")) for _ in range(10)
    ]
    await setup.v1.entered.wait()
    setup.v1.gate.set()
    answers = await asyncio.gather(*requests)
    assert setup.v1.calls == [["same"]]
    assert len({prediction.id for [prediction] in answers}) == 10
    assert len(setup.log.predictions) == 10


async def test_an_answer_is_stored_under_the_revision_that_gave_it(setup: Setup) -> None:
    # As when the runner changes its weights between the lookup and the answer.
    setup.v1.answers_as = "r9"
    [prediction] = await setup.path.predict(["text"], "v1", "/predict")
    assert prediction.classification.revision == "r9"
    assert list(setup.cache.content) == [cache_key("v1", "r9", "text")]


async def test_compare_asks_both_at_once_and_links_them(setup: Setup) -> None:
    setup.v1.gate.clear()
    setup.v2.gate.clear()
    task = asyncio.create_task(setup.path.compare("text"))
    async with asyncio.timeout(5):
        await asyncio.gather(setup.v1.entered.wait(), setup.v2.entered.wait())
    setup.v1.gate.set()
    setup.v2.gate.set()
    comparison = await task
    assert (comparison.v1.version, comparison.v2.version) == ("v1", "v2")
    assert setup.log.comparisons == [comparison]
    assert setup.log.predictions == [comparison.v1, comparison.v2]
    assert comparison.id not in (comparison.v1.id, comparison.v2.id)


async def test_compare_records_nothing_if_one_runner_fails(setup: Setup) -> None:
    setup.v2.fails = True
    with pytest.raises(RunnerUnavailable):
        await setup.path.compare("text")
    assert (setup.log.predictions, setup.log.comparisons) == ([], [])


async def test_metrics_count_every_prediction(setup: Setup) -> None:
    text = "four"
    sentiment = classification(text).sentiment
    labels = {"sentiment": sentiment, "version": "v1"}
    before = counter("model_predictions_total", **labels)
    observed = counter("model_confidence_count", version="v1")
    await setup.path.predict([text, text], "v1", "/predict/batch")
    await setup.path.predict([text], "v1", "/predict")
    assert counter("model_predictions_total", **labels) - before == 3
    assert counter("model_confidence_count", version="v1") - observed == 3
