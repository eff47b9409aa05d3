"""The one prediction path, branch by branch."""

from __future__ import annotations

import asyncio
import math
import operator
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import request_context
from core.errors import DeadlineExceeded, Overloaded, RunnerUnavailable
from core.keyed_hash import subject_digest
from core.repeatable import Repeatable
from core.request_context import RequestContext, enter
from core.types import (
    VERSIONS,
    Classification,
    Experiment,
    ModelVersion,
    Prediction,
    Split,
    Version,
)
from core.uuid7 import time_of
from rollout.bucketing import assign
from rollout.policy import RolloutPolicy, Weights
from tests.unit.fakes import Setup, classification, counter
from tests.waiting import until


def classified(prediction: Prediction) -> Classification:
    """The classification that `prediction` was made of."""
    model = prediction.model
    return Classification(
        model.revision,
        model.engine,
        prediction.scores,
        prediction.token_count,
        prediction.truncated,
    )


async def test_a_miss_is_classified_stored_and_recorded(setup: Setup) -> None:
    [prediction] = await setup.path.predict(["good film"], "v1", "/predict")
    assert classified(prediction) == classification("good film")
    assert (prediction.cache_hit, prediction.version) == (False, "v1")
    assert (prediction.endpoint, prediction.model.engine) == ("/predict", "openvino-bf16")
    assert prediction.id.version == 7
    assert prediction.created_at.utcoffset() == timedelta(0)
    assert prediction.latency_ms > 0
    assert setup.v1.calls == [["good film"]]
    assert setup.cache.content == {
        setup.cache_keys.key("v1", "r1", "good film"): classification("good film")
    }
    assert setup.log.predictions == [prediction]


async def test_a_hit_asks_no_runner_and_is_recorded(setup: Setup) -> None:
    await setup.path.predict(["good film"], "v1", "/predict")
    [prediction] = await setup.path.predict(["good film"], "v1", "/predict")
    assert prediction.cache_hit is True
    assert classified(prediction) == classification("good film")
    assert len(setup.v1.calls) == 1
    assert len(setup.cache.stores) == 1
    assert len(setup.log.predictions) == 2


async def test_a_batch_is_one_lookup_one_call_and_one_store(setup: Setup) -> None:
    await setup.path.predict(["known"], "v1", "/predict")
    texts = ["new one", "known", "newer still", "new one"]
    predictions = await setup.path.predict(texts, "v1", "/predict/batch")
    assert [p.text for p in predictions] == texts
    assert [p.cache_hit for p in predictions] == [False, True, False, False]
    assert [classified(p) for p in predictions] == [classification(text) for text in texts]
    assert len({p.id for p in predictions}) == 4
    assert [p.id for p in predictions] == sorted(p.id for p in predictions)
    assert setup.v1.calls[1:] == [["new one", "newer still"]]
    assert len(setup.cache.lookups) == 2
    assert len(setup.cache.stores) == 2


async def test_an_overloaded_model_refuses_what_is_new_and_nothing_else(setup: Setup) -> None:
    await setup.path.predict(["known"], "v1", "/predict")
    setup.v1.gate.clear()
    setup.v1.entered.clear()
    first = asyncio.create_task(setup.path.predict(["under way"], "v1", "/predict"))
    await setup.v1.entered.wait()
    setup.v1.overloaded = True
    joined = asyncio.create_task(setup.path.predict(["under way", "known"], "v1", "/predict/batch"))
    with pytest.raises(Overloaded):
        await setup.path.predict(["new", "known"], "v1", "/predict/batch")
    setup.v1.gate.set()
    await first
    assert [one.text for one in await joined] == ["under way", "known"]
    assert setup.v1.calls == [["known"], ["under way"]]
    [(model, endpoint, texts)] = setup.log.failures
    assert (model.version, endpoint, texts) == ("v1", "/predict/batch", 2)


async def test_a_client_that_has_too_little_time_is_no_failure_of_the_model(setup: Setup) -> None:
    setup.v1.too_slow = True
    with pytest.raises(DeadlineExceeded):
        await setup.path.predict(["new"], "v1", "/predict")
    assert setup.log.failures == []


async def test_a_client_that_asks_for_too_much_is_no_failure_of_the_model(setup: Setup) -> None:
    setup.v1.has_too_many_of_caller = True
    with pytest.raises(Overloaded):
        await setup.path.predict(["new"], "v1", "/predict")
    assert setup.log.failures == []


async def test_who_asks_for_cached_texts_of_any_version_is_another_caller_too(
    setup: Setup,
) -> None:
    await setup.path.predict(["cached"], "v1", "/predict")
    assert not setup.recent.has_others("somebody", time.monotonic())
    request_context.enter(RequestContext("id", caller="ann"))
    assert (await setup.path.predict(["cached"], "v1", "/predict"))[0].cache_hit
    assert setup.recent.has_others("somebody", time.monotonic())
    assert not setup.recent.has_others("ann", time.monotonic())


async def test_versions_do_not_share_answers(setup: Setup) -> None:
    [v1] = await setup.path.predict(["same"], "v1", "/predict")
    [v2] = await setup.path.predict(["same"], "v2", "/predict")
    assert (v1.cache_hit, v2.cache_hit) == (False, False)
    assert (setup.v1.calls, setup.v2.calls) == ([["same"]], [["same"]])


async def test_a_failure_is_counted_with_the_model_that_failed(setup: Setup) -> None:
    setup.v2.fails = True
    with pytest.raises(RunnerUnavailable):
        await setup.path.predict(["one", "two"], "v2", "/predict/batch")
    assert setup.log.failures == [(ModelVersion("v2", "r2", "openvino-bf16"), "/predict/batch", 2)]


async def test_a_subject_is_recorded_with_its_test(setup: Setup) -> None:
    predictions = [await setup.path.predict_ab("text", f"subject {n % 5}") for n in range(20)]
    assert setup.log.predictions == predictions
    models = ModelVersion("v1", "r1", "openvino-bf16"), ModelVersion("v2", "r2", "openvino-bf16")
    assert {p.assignment.experiment for p in predictions if p.assignment} == {
        Experiment(Split("salt", 50), *models)
    }
    keys = {p.assignment.subject_key for p in predictions if p.assignment}
    assert len(keys) == 5
    assert all(
        p.version == assign(p.assignment.subject_key, 50) for p in predictions if p.assignment
    )


async def test_subject_counts_in_its_test_although_its_client_left_or_its_deadline_passed(
    setup: Setup,
) -> None:
    """Else a client chose by its deadlines whom a test is about: those whose version is fast."""
    runners = {"v1": setup.v1, "v2": setup.v2}
    for runner in runners.values():
        runner.gate.clear()
    subjects = [f"subject {number}" for number in range(10)]

    async def ask(subject: str) -> None:
        async with request_context.deadline_in(0.01):
            await setup.path.predict_ab(f"text of {subject}", subject)

    late = await asyncio.gather(*map(ask, subjects), return_exceptions=True)
    assert {type(each) for each in late} == {TimeoutError}
    left = asyncio.create_task(setup.path.predict_ab("text", "who leaves"))
    await asyncio.sleep(0)
    left.cancel()
    assert setup.log.predictions == []
    for runner in runners.values():
        runner.gate.set()
    await until(lambda: len(setup.log.predictions) == 11)
    assert all(each.assignment is not None for each in setup.log.predictions)


@pytest.mark.parametrize("is_late", [True, False])
async def test_stop_waits_a_while_for_the_predictions_of_clients_that_left(
    setup: Setup, *, is_late: bool
) -> None:
    for runner in (setup.v1, setup.v2):
        runner.gate.clear()
    left = asyncio.create_task(setup.path.predict_ab("text", "who leaves"))
    await asyncio.sleep(0)
    left.cancel()
    stopping = asyncio.create_task(setup.path.stop(0.05 if is_late else 10.0))
    await asyncio.sleep(0)
    assert not stopping.done()
    if is_late:
        await stopping
    for runner in (setup.v1, setup.v2):
        runner.gate.set()
    await stopping
    assert len(setup.log.predictions) == (0 if is_late else 1)


@pytest.mark.parametrize("is_trial", [True, False])
async def test_only_a_subject_of_a_test_is_answered_although_its_client_left(
    setup: Setup, *, is_trial: bool
) -> None:
    setup.policy = RolloutPolicy(salt="salt", overrides={"user-1": "v1"})
    enter(RequestContext("a", is_trial=is_trial))
    setup.v1.gate.clear()
    setup.v2.gate.clear()
    left = asyncio.create_task(setup.path.predict_ab("text", "anybody" if is_trial else "user-1"))
    await asyncio.sleep(0.01)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    setup.v1.gate.set()
    setup.v2.gate.set()
    await setup.path.stop()
    assert setup.log.predictions == []
    assert setup.cache.content == {}


async def test_subject_is_recorded_although_its_text_was_begun_for_a_client_in_haste(
    setup: Setup,
) -> None:
    setup.policy = RolloutPolicy(salt="salt", ab_weights=Weights(v1=100, v2=0))
    setup.v1.gate.clear()

    async def hurry() -> None:
        async with request_context.deadline_in(0.05):
            await setup.path.predict(["same"], "v1", "/predict")

    hasty = asyncio.create_task(hurry())
    await setup.v1.entered.wait()
    joined = asyncio.create_task(setup.path.predict_ab("same", "ana"))
    with pytest.raises(TimeoutError):
        await hasty
    setup.v1.gate.set()
    assert (await joined).text == "same"
    assert setup.v1.seconds_left == [math.inf]


async def test_without_a_subject_each_request_is_its_own(setup: Setup) -> None:
    predictions = [await setup.path.predict_ab("text", None) for _ in range(5)]
    assert len({p.assignment.subject_key for p in predictions if p.assignment}) == 5


async def test_each_try_of_a_repeatable_request_records_the_same_ids(setup: Setup) -> None:
    async def try_once(key: bytes) -> list[object]:
        repeatable = Repeatable(datetime(2026, 11, 27, 9, tzinfo=UTC), key)
        request_context.enter(RequestContext("id", repeatable=repeatable))
        texts = ["a", "b", "a", *(f"text {number}" for number in range(97))]
        batch = await setup.path.predict(texts, "v1", "/predict/batch")
        alone = await setup.path.predict_ab("text", None)
        compared = await setup.path.compare("text")
        assert alone.assignment is not None
        assert {prediction.created_at for prediction in [*batch, alone]} == {repeatable.at}
        ids = [prediction.id for prediction in batch]
        assert ids == sorted(set(ids))
        assert all(time_of(id_) == repeatable.at and id_.version == 7 for id_ in ids)
        assert len({compared.id, compared.v1.id, compared.v2.id}) == 3
        return [
            *ids, alone.id, alone.assignment.subject_key,
            compared.id, compared.v1.id, compared.v2.id,
        ]  # fmt: skip

    first = await asyncio.create_task(try_once(b"key"))
    assert await asyncio.create_task(try_once(b"key")) == first
    other = await asyncio.create_task(try_once(b"another key"))
    assert not set(other) & set(first)


async def test_try_that_another_version_answers_has_the_same_id(setup: Setup) -> None:
    repeatable = Repeatable(datetime(2026, 11, 27, 9, tzinfo=UTC), b"key")

    async def try_once(version: Version) -> UUID:
        request_context.enter(RequestContext("id", repeatable=repeatable))
        [prediction] = await setup.path.predict(["text"], version, "/predict")
        return prediction.id

    ids = {await asyncio.create_task(try_once(version)) for version in VERSIONS}
    assert len(ids) == 1


@pytest.mark.parametrize("version", VERSIONS)
async def test_try_of_a_subject_is_answered_by_the_version_of_an_earlier_one(
    setup: Setup, version: Version
) -> None:
    repeatable = Repeatable(datetime(2026, 11, 27, 9, tzinfo=UTC), b"key", version)
    for subject in map(str, range(10)):
        request_context.enter(request := RequestContext("id", repeatable=repeatable))
        prediction = await setup.path.predict_ab("text", subject)
        assert prediction.version == version
        # A trial tells nothing of a test, and is in no log.
        request.is_trial = True
        trials = {(await setup.path.predict_ab("text", str(n))).version for n in range(20)}
        assert trials == set(VERSIONS)


@pytest.mark.parametrize("version", VERSIONS)
async def test_try_without_a_version_is_answered_by_that_of_an_earlier_one(
    setup: Setup, version: Version
) -> None:
    """The champion may be another one now, and the log keeps the answer of the first try."""
    repeatable = Repeatable(datetime(2026, 11, 27, 9, tzinfo=UTC), b"key", version)
    request_context.enter(request := RequestContext("id", repeatable=repeatable))
    for texts, endpoint in ((["text"], "/predict"), (["one", "two"], "/predict/batch")):
        predictions = await setup.path.predict(texts, None, endpoint)  # type: ignore[arg-type]
        assert {prediction.version for prediction in predictions} == {version}
    [named] = await setup.path.predict(["text"], "v2", "/predict")
    assert named.version == "v2"
    request.repeatable = Repeatable(repeatable.at, repeatable.key)
    [first] = await setup.path.predict(["text"], None, "/predict")
    assert request.repeatable.version == first.version


async def test_version_is_kept_for_later_tries_once_the_log_may_have_it_and_not_before(
    setup: Setup,
) -> None:
    kept: list[tuple[Version, int]] = []

    async def keep(version: Version) -> None:
        kept.append((version, len(setup.log.predictions)))

    def try_anew() -> None:
        repeatable = Repeatable(datetime(2026, 11, 27, 9, tzinfo=UTC), b"key", None, keep)
        request_context.enter(RequestContext("id", repeatable=repeatable))

    setup.policy = RolloutPolicy(salt="salt", ab_weights=Weights(v1=100, v2=0))
    for endpoint in ("/predict", "/predict/batch"):
        try_anew()
        await setup.path.predict(["text"], None, endpoint)
    try_anew()
    await setup.path.predict_ab("text", None)
    assert kept == [("v1", 0), ("v1", 1), ("v1", 2)]
    try_anew()
    await setup.path.predict(["text"], "v2", "/predict")  # which it names each time
    setup.v1.fails = True
    try_anew()
    with pytest.raises(RunnerUnavailable):
        await setup.path.predict(["another text"], None, "/predict")
    assert len(kept) == 3


async def test_version_of_a_test_is_kept_before_it_answers(setup: Setup) -> None:
    """It is recorded although its client may have left, and come again."""
    kept: list[tuple[Version, int]] = []

    async def keep(version: Version) -> None:
        kept.append((version, len(setup.v1.calls) + len(setup.v2.calls)))

    repeatable = Repeatable(datetime(2026, 11, 27, 9, tzinfo=UTC), b"key", None, keep)
    request_context.enter(RequestContext("id", repeatable=repeatable))
    prediction = await setup.path.predict_ab("text", "ann")
    assert prediction.assignment is not None
    assert kept == [(prediction.version, 0)]


async def test_first_try_of_a_subject_notes_the_version_that_it_is_assigned_to(
    setup: Setup,
) -> None:
    repeatable = Repeatable(datetime(2026, 11, 27, 9, tzinfo=UTC), b"key")
    request_context.enter(request := RequestContext("id", repeatable=repeatable))
    prediction = await setup.path.predict_ab("text", "ann")
    assert request.repeatable == Repeatable(repeatable.at, repeatable.key, prediction.version)


async def test_no_test_is_recorded_while_there_is_only_one_version(setup: Setup) -> None:
    [alone] = [n for n in range(50) if assign(subject_digest(str(n), "salt"), 50) == "v1"][:1]
    setup.v2.starting = True
    prediction = await setup.path.predict_ab("text", str(alone))
    assert (prediction.version, prediction.assignment) == ("v1", None)


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
    assert prediction.model.revision == "r9"
    assert list(setup.cache.content) == [setup.cache_keys.key("v1", "r9", "text")]


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


async def test_a_batch_of_hits_asks_no_runner(setup: Setup) -> None:
    texts = ["one", "two", "one"]
    await setup.path.predict(texts, "v1", "/predict/batch")
    predictions = await setup.path.predict(texts, "v1", "/predict/batch")
    assert [p.cache_hit for p in predictions] == [True] * 3
    assert [classified(p) for p in predictions] == [classification(text) for text in texts]
    assert setup.v1.calls == [["one", "two"]]
    assert len(setup.cache.stores) == 1


LARGE = [f"{number} ".ljust(2_000, "x") for number in range(10)]


async def test_pieces_of_a_batch_that_failed_are_not_computed_again(setup: Setup) -> None:
    """Or a batch that was too late once would be so for ever."""
    setup.v1.first_piece, setup.v1.fails = 4, True
    with pytest.raises(RunnerUnavailable):
        await setup.path.predict(LARGE, "v1", "/predict/batch")
    setup.v1.fails = False
    made = await setup.path.predict(LARGE, "v1", "/predict/batch")
    assert setup.v1.calls == [LARGE, LARGE[4:]]
    assert [one.cache_hit for one in made] == [True] * 4 + [False] * 6


async def test_single_text_waits_for_no_batch_that_has_it_too(setup: Setup) -> None:
    setup.v1.gate.clear()
    batch = asyncio.create_task(setup.path.predict(LARGE, "v1", "/predict/batch"))
    await until(lambda: len(setup.v1.calls) == 1)
    single = asyncio.create_task(setup.path.predict([LARGE[9]], "v1", "/predict"))
    await until(lambda: len(setup.v1.calls) == 2)
    setup.v1.gate.set()
    await asyncio.gather(batch, single)
    assert setup.v1.calls == [LARGE, [LARGE[9]]]


async def test_batch_gets_what_another_one_has_found_already(setup: Setup) -> None:
    setup.v1.gate.clear()
    setup.v1.first_piece = 4
    batch = asyncio.create_task(setup.path.predict(LARGE, "v1", "/predict/batch"))
    await until(lambda: len(setup.v1.calls) == 1)
    setup.cache.content.clear()  # as without Redis
    made = await setup.path.predict(LARGE[:4], "v1", "/predict/batch")
    assert [one.text for one in made] == LARGE[:4]
    assert not batch.done()
    setup.v1.gate.set()
    await batch
    assert setup.v1.calls == [LARGE]


async def test_overlapping_batches_in_flight_share_what_they_have_in_common(setup: Setup) -> None:
    setup.v1.gate.clear()
    one = asyncio.create_task(setup.path.predict(["a", "b"], "v1", "/predict/batch"))
    await setup.v1.entered.wait()
    setup.v1.entered.clear()
    other = asyncio.create_task(setup.path.predict(["c", "b"], "v1", "/predict/batch"))
    await setup.v1.entered.wait()
    setup.v1.gate.set()
    await one
    assert [p.text for p in await other] == ["c", "b"]
    assert setup.v1.calls == [["a", "b"], ["c"]]


async def test_a_caller_that_gives_up_leaves_the_answer_to_the_others(setup: Setup) -> None:
    setup.v1.gate.clear()
    leaver = asyncio.create_task(setup.path.predict(["same"], "v1", "/predict"))
    await setup.v1.entered.wait()
    joins = counter("cache_single_flight_joins_total")
    stayer = asyncio.create_task(setup.path.predict(["same"], "v1", "/predict"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert counter("cache_single_flight_joins_total") - joins == 1
    leaver.cancel()
    setup.v1.gate.set()
    [prediction] = await stayer
    assert setup.v1.calls == [["same"]]
    assert setup.log.predictions == [prediction]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from("abcdef"), max_size=6),
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=8),
)
async def test_any_batch_is_answered_in_order_by_as_little_work_as_possible(
    known: list[str], texts: list[str]
) -> None:
    setup = Setup()
    if known:
        await setup.path.predict(known, "v1", "/predict/batch")
    asked = len(setup.v1.calls)
    predictions = await setup.path.predict(texts, "v1", "/predict/batch")
    assert [p.text for p in predictions] == texts
    assert [classified(p) for p in predictions] == [classification(text) for text in texts]
    assert [p.cache_hit for p in predictions] == [text in known for text in texts]
    missing = [text for text in dict.fromkeys(texts) if text not in known]
    assert setup.v1.calls[asked:] == ([missing] if missing else [])
    assert setup.log.predictions[len(known) :] == predictions


async def test_without_a_version_the_champion_answers(setup: Setup) -> None:
    setup.policy = RolloutPolicy(champion="v2")
    [single] = await setup.path.predict(["one"], None, "/predict")
    batch = await setup.path.predict(["two", "three"], None, "/predict/batch")
    assert {one.version for one in (single, *batch)} == {"v2"}


async def test_a_share_of_predict_may_go_to_the_challenger_by_text(setup: Setup) -> None:
    setup.policy = RolloutPolicy(predict_weights=Weights(v1=70, v2=30))
    texts = [f"text {number}" for number in range(400)]
    first, again = [
        [(await setup.path.predict([text], None, "/predict"))[0] for text in texts]
        for _ in range(2)
    ]
    assert [one.version for one in first] == [one.version for one in again]
    assert all(one.cache_hit for one in again)
    assert 75 <= sum(one.version == "v2" for one in first) <= 165
    assert {one.version for one in await setup.path.predict(texts, None, "/predict/batch")} == {
        "v1"
    }


async def test_an_overridden_subject_is_in_no_experiment(setup: Setup) -> None:
    setup.policy = RolloutPolicy(ab_weights=Weights(v1=100, v2=0), overrides={"user-1": "v2"})
    mine = await setup.path.predict_ab("text", "user-1")
    other = await setup.path.predict_ab("text", "user-2")
    assert (mine.version, mine.assignment) == ("v2", None)
    assert (other.version, other.assignment is None) == ("v1", False)


async def test_trial_does_not_tell_the_version_of_a_subject_but_of_an_override(
    setup: Setup,
) -> None:
    setup.policy = RolloutPolicy(overrides={"tester": "v2"})
    subjects = [f"user-{number}" for number in range(200)]
    real = [(await setup.path.predict_ab("text", subject)).version for subject in subjects]
    enter(RequestContext("a", is_trial=True))
    tried = [(await setup.path.predict_ab("text", subject)).version for subject in subjects]
    again = [(await setup.path.predict_ab("text", subject)).version for subject in subjects]
    assert tried == again
    # Five standard deviations around a half.
    assert 64 <= sum(map(operator.eq, real, tried)) <= 136
    assert (await setup.path.predict_ab("text", "tester")).version == "v2"


async def test_trial_does_not_tell_the_version_of_a_text(setup: Setup) -> None:
    setup.policy = RolloutPolicy(predict_weights=Weights(v1=50, v2=50))
    texts = [f"film {number}" for number in range(200)]

    async def versions() -> list[Version]:
        return [(await setup.path.predict([text], None, "/predict"))[0].version for text in texts]

    real = await versions()
    enter(RequestContext("a", is_trial=True))
    tried = await versions()
    assert tried == await versions()
    # Five standard deviations around a half.
    assert 64 <= sum(map(operator.eq, real, tried)) <= 136


@pytest.mark.parametrize("is_trial", [True, False])
async def test_only_trials_of_the_playground_are_not_recorded(
    setup: Setup, *, is_trial: bool
) -> None:
    setup.policy = RolloutPolicy(salt="salt", shadow_percent=100)
    before = counted_predictions()
    enter(RequestContext("a", is_trial=is_trial))
    answered = [
        *await setup.path.predict(["a good film"], None, "/predict"),
        *await setup.path.predict(["good", "bad"], "v1", "/predict/batch"),
        await setup.path.predict_ab("a good film", "ana"),
    ]
    compared = await setup.path.compare("a good film")
    setup.v2.fails = True
    with pytest.raises(RunnerUnavailable):
        await setup.path.predict(["another"], "v2", "/predict")
    assert [each.text for each in answered] == ["a good film", "good", "bad", "a good film"]
    recorded = 0 if is_trial else len(answered) + 2
    assert len(setup.log.predictions) == recorded
    assert setup.log.comparisons == ([] if is_trial else [compared])
    assert len(setup.log.failures) == len(setup.shadowed) == (0 if is_trial else 1)
    assert counted_predictions() - before == recorded


def counted_predictions() -> float:
    return sum(
        counter("model_predictions_total", sentiment=sentiment, version=version)
        for sentiment in ("negative", "positive")
        for version in ("v1", "v2")
    )
