"""Both versions answer one text at once, and are recorded as linked or not at all."""

from __future__ import annotations

import asyncio

import pytest

from core.errors import RunnerUnavailable
from core.keyed_hash import COMPARISON_SALT, subject_digest
from tests.unit.fakes import Setup, counter


async def test_compare_asks_both_at_once_and_links_them(setup: Setup) -> None:
    setup.v1.gate.clear()
    setup.v2.gate.clear()
    task = asyncio.create_task(setup.path.compare("text"))
    async with asyncio.timeout(5):
        await asyncio.gather(setup.v1.entered.wait(), setup.v2.entered.wait())
    setup.v1.gate.set()
    setup.v2.gate.set()
    before = counter("model_comparisons_total", agreement="agree")
    comparison = await task
    assert comparison.agreement
    assert counter("model_comparisons_total", agreement="agree") - before == 1
    assert (comparison.v1.version, comparison.v2.version) == ("v1", "v2")
    assert setup.log.comparisons == [comparison]
    assert setup.log.predictions == [comparison.v1, comparison.v2]
    assert comparison.id not in (comparison.v1.id, comparison.v2.id)


async def test_both_predictions_have_the_hashed_subject_of_a_comparison(setup: Setup) -> None:
    comparison = await setup.path.compare("text", "ana")
    key = subject_digest("ana", COMPARISON_SALT)
    assert [prediction.hashed_subject for prediction in setup.log.predictions] == [key, key]
    assert comparison.v1.assignment is None
    assert (await setup.path.compare("text")).v1.hashed_subject is None


async def test_compare_records_nothing_if_one_runner_fails(setup: Setup) -> None:
    setup.v2.fails = True
    with pytest.raises(RunnerUnavailable):
        await setup.path.compare("text")
    assert (setup.log.predictions, setup.log.comparisons) == ([], [])


async def test_compare_takes_each_version_from_the_cache_alone(setup: Setup) -> None:
    await setup.path.predict(["text"], "v2", "/predict")
    comparison = await setup.path.compare("text")
    assert (comparison.v1.cache_hit, comparison.v2.cache_hit) == (False, True)
    assert (comparison.v1.endpoint, comparison.v2.endpoint) == ("/predict/ab-compare",) * 2
    assert (setup.v1.calls, setup.v2.calls) == ([["text"]], [["text"]])


async def test_a_prediction_that_failed_is_not_counted(setup: Setup) -> None:
    before = counter("model_confidence_count", version="v2")
    setup.v2.fails = True
    with pytest.raises(RunnerUnavailable):
        await setup.path.compare("text")
    assert counter("model_confidence_count", version="v2") == before
