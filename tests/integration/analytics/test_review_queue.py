"""The review queue draws with known probabilities, and its labels count by their weights."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.ab.report import ab_test
from analytics.confidence import confidence
from analytics.feedback.store import FeedbackStore
from analytics.hash_keys import HashKeys
from analytics.privacy.erase import Actor, erase
from analytics.privacy.selection import Selector
from analytics.reader import Reader
from analytics.review.draw import ReviewDraws
from analytics.review.queue import NOT_KEPT, ReviewQueue, review_queue
from analytics.scope import Scope
from analytics.time_range import TimeRange
from core.types import Comparison, Prediction, Sentiment, Version
from core.uuid7 import new_id
from tests.integration.predictions import PredictionWriter, make_prediction

NOW = datetime(2026, 3, 2, 12, 30, 20, tzinfo=UTC)
DAY = TimeRange(NOW - timedelta(days=1), NOW)
NO_SPOOL = Path("/nowhere")


def made_at(seconds_ago: float, *, sure: float = 0.95, version: Version = "v1") -> Prediction:
    return make_prediction(
        f"A film of {seconds_ago} s ago.",
        version=version,
        scores={"negative": 1 - sure, "positive": sure},
        created_at=NOW - timedelta(seconds=seconds_ago),
    )


async def ask(
    engine: AsyncEngine, draws: ReviewDraws, now: datetime = NOW, **given: Any
) -> ReviewQueue:
    span = TimeRange(now - timedelta(days=1), now)
    scope = Scope(span, given.pop("version", None))
    return await review_queue(Reader(engine), draws, scope, given.pop("limit", 200), now, **given)


async def rows(engine: AsyncEngine, statement: str) -> Sequence[Any]:
    async with engine.connect() as connection:
        return (await connection.execute(text(statement))).all()


@pytest.fixture
async def many(engine: AsyncEngine) -> list[Prediction]:
    """2,000 predictions of v1 of the last minutes, every tenth without a clear class."""
    made = [
        made_at(10 + number / 4, sure=0.55 if number % 10 == 0 else 0.95) for number in range(2_000)
    ]
    await PredictionWriter(engine).write(made)
    return made


async def test_few_predictions_are_all_in_the_queue(engine: AsyncEngine) -> None:
    made = [made_at(20, sure=0.52), made_at(30, version="v2"), made_at(2)]
    await PredictionWriter(engine).write(made)
    queue = await ask(engine, ReviewDraws(engine))
    # The youngest may have others before it that are not stored yet.
    assert {item.prediction_id for item in queue.items} == {made[0].id, made[1].id}
    assert {item.probability for item in queue.items} == {1}
    [unsure] = [item for item in queue.items if item.prediction_id == made[0].id]
    assert set(unsure.reasons) == {"low_confidence", "random"}
    assert unsure.classes == ["negative", "positive"]
    assert (unsure.text, queue.texts, queue.note) == (None, "not_kept", NOT_KEPT)
    assert (queue.waiting, queue.labelled) == (2, 0)
    assert [
        i.model_version for i in (await ask(engine, ReviewDraws(engine), version="v2")).items
    ] == ["v2"]


async def test_draw_is_poisson_with_the_stored_probabilities(
    engine: AsyncEngine, many: list[Prediction]
) -> None:
    queue = await ask(engine, ReviewDraws(engine))
    [draw] = await rows(engine, "SELECT * FROM review_draws")
    assert (draw.version, draw.pool) == ("v1", 2_000)
    # 1,800 of importance 1 and 200 of importance 4.
    assert draw.rate == pytest.approx(100 / (1_800 + 4 * 200))
    assert 60 <= queue.waiting <= 140
    for item in queue.items:
        is_unsure = item.confidence < 0.6
        assert item.probability == pytest.approx(draw.rate * (4 if is_unsure else 1))
        assert ("low_confidence" in item.reasons) == is_unsure
        assert item.weight == pytest.approx(1 / item.probability)
        assert is_unsure or item.reasons == ["random"]
    # The weights add up to the pool, within five standard deviations.
    assert sum(item.weight for item in queue.items) == pytest.approx(2_000, abs=5 * 2_000 * 0.11)


async def test_short_range_takes_nothing_from_those_who_ask_for_a_longer_one(
    engine: AsyncEngine,
) -> None:
    await PredictionWriter(engine).write([made_at(20 + number) for number in range(50)])
    await PredictionWriter(engine).write([made_at(10)])
    draws = ReviewDraws(engine)
    short = Scope(TimeRange(NOW - timedelta(seconds=15), NOW))
    assert (await review_queue(Reader(engine), draws, short, 200, NOW)).waiting == 1
    assert (await ask(engine, draws)).waiting == 51


async def test_important_predictions_are_certain_before_the_size_is_reached(
    engine: AsyncEngine,
) -> None:
    made = [made_at(10 + number, sure=0.55 if number < 20 else 0.95) for number in range(200)]
    await PredictionWriter(engine).write(made)
    queue = await ask(engine, ReviewDraws(engine))
    [draw] = await rows(engine, "SELECT * FROM review_draws")
    # 20 are certain, and the other 80 are of 180.
    assert draw.rate == pytest.approx(80 / 180)
    unsure = [item for item in queue.items if item.confidence < 0.6]
    assert [item.probability for item in unsure] == [1] * 20


async def test_prediction_has_one_chance_however_often_is_asked(
    engine: AsyncEngine, many: list[Prediction]
) -> None:
    draws = ReviewDraws(engine, size=10)
    first = await ask(engine, draws)
    assert (await ask(engine, draws)).items == first.items
    store = FeedbackStore(engine, NO_SPOOL)
    for item in first.items:
        await store.add(item.prediction_id, "positive")
    later = NOW + timedelta(minutes=2)
    await PredictionWriter(engine).write([made_at(-60)])
    soon = await ask(engine, draws, later)
    assert (soon.items, soon.waiting, soon.labelled) == ([], 0, len(first.items))
    [item] = (await ask(engine, draws, NOW + timedelta(minutes=6))).items
    assert item.probability == 1
    assert item.created_at == NOW + timedelta(seconds=60)
    # A pool that was drawn whole is followed by another at once.
    await PredictionWriter(engine).write([made_at(-365)])
    assert len((await ask(engine, draws, NOW + timedelta(minutes=7))).items) == 2
    assert (await rows(engine, "SELECT count(*) FROM review_draws"))[0][0] == 3


async def test_limit_of_zero_counts_and_draws_nothing(
    engine: AsyncEngine, many: list[Prediction]
) -> None:
    assert (await ask(engine, ReviewDraws(engine), limit=0)).waiting == 0
    assert await rows(engine, "SELECT * FROM review_draws") == []
    waiting = (await ask(engine, ReviewDraws(engine))).waiting
    assert (await ask(engine, ReviewDraws(engine), limit=0)).waiting == waiting


async def test_texts_are_shown_to_keys_that_may_label(engine: AsyncEngine) -> None:
    await PredictionWriter(engine, "full").write([made_at(20)])
    queue = await ask(engine, ReviewDraws(engine))
    assert (queue.items[0].text, queue.texts, queue.note) == ("A film of 20 s ago.", "shown", None)
    hidden = await ask(engine, ReviewDraws(engine), shows_texts=False)
    assert (hidden.items[0].text, hidden.texts) == (None, "needs_scope_feedback")


async def test_labels_of_the_queue_count_by_their_weights_and_apart(
    engine: AsyncEngine, many: list[Prediction]
) -> None:
    store, numbers = FeedbackStore(engine, NO_SPOOL), random.Random(3)
    ordinary = numbers.sample(many, 40)
    for prediction in ordinary:
        await store.add(prediction.id, "negative")
    # Only few are labelled so far, so the draw may contain some of these.
    queue = await ask(engine, ReviewDraws(engine))
    drawn = await rows(
        engine,
        "SELECT i.*, p.confidence FROM review_items i JOIN predictions p ON p.id = i.prediction_id",
    )
    labels: dict[Any, Sentiment] = {p.id: "negative" for p in ordinary}
    for item in queue.items:
        labels[item.prediction_id] = numbers.choice(("negative", "positive"))
        await store.add(item.prediction_id, "negative")
        await store.add(item.prediction_id, labels[item.prediction_id])
    weight = sum(1 / row.probability for row in drawn)
    right = sum(1 / row.probability for row in drawn if labels[row.prediction_id] == "positive")
    squares = sum(1 / row.probability**2 for row in drawn)
    for until in (NOW, NOW - timedelta(seconds=25, milliseconds=70)):
        span = TimeRange(DAY.since, until)
        [version] = (await confidence(Reader(engine), Scope(span))).versions
        assert version.calibration is not None
        assert version.calibration.sampled
        if until == NOW:
            assert version.calibration.count == len(drawn)
            assert version.calibration.accuracy == pytest.approx(right / weight)
            assert version.calibration.effective_count == pytest.approx(weight**2 / squares)
    [sums] = await rows(
        engine,
        "SELECT sum(labelled) AS labelled, sum(correct) AS correct, sum(sampled) AS sampled,"
        " sum(weight) AS weight FROM label_rollups WHERE bucket_seconds = 60",
    )
    assert (sums.labelled, sums.correct, sums.sampled) == (40, 0, len(drawn))
    assert sums.weight == pytest.approx(weight)


async def sampled_labels(engine: AsyncEngine) -> int:
    """How many labels of the queue the rollups have, and the rows at the ends of a range."""
    [sums] = await rows(
        engine,
        "SELECT coalesce(sum(sampled), 0) AS sampled FROM label_rollups WHERE bucket_seconds = 60",
    )
    # Of a range within a minute, the rows themselves are read.
    [counted] = await rows(
        engine,
        "SELECT count(*) AS labels FROM review_items WHERE counts"
        " AND prediction_id IN (SELECT prediction_id FROM feedback)",
    )
    assert sums.sampled == counted.labels
    return int(sums.sampled)


async def test_reported_mistakes_of_a_draw_that_nobody_labels_do_not_count(
    engine: AsyncEngine, many: list[Prediction]
) -> None:
    queue = await ask(engine, ReviewDraws(engine))
    store = FeedbackStore(engine, NO_SPOOL)
    for item in queue.items[::3]:
        await store.add(item.prediction_id, "negative")
    assert await sampled_labels(engine) == 0
    assert (await confidence(Reader(engine), Scope(DAY))).versions[0].calibration is None
    # Somebody labels the queue after all, from its beginning, and finds most of them right.
    for item in queue.items[: len(queue.items) // 2]:
        await store.add(item.prediction_id, "positive")
    some = await sampled_labels(engine)
    assert len(queue.items) / 4 < some <= len(queue.items) / 2 + 10
    for item in queue.items:
        await store.add(item.prediction_id, "positive")
    assert await sampled_labels(engine) == len(queue.items)
    [version] = (await confidence(Reader(engine), Scope(DAY))).versions
    assert version.calibration is not None
    assert (version.calibration.count, version.calibration.accuracy) == (len(queue.items), 1)


async def test_labels_of_small_draws_count_once_their_block_is_nearly_full(
    engine: AsyncEngine,
) -> None:
    draws, store, made = ReviewDraws(engine), FeedbackStore(engine, NO_SPOOL), []
    counted = []
    for number in range(8):
        # Of each three, one has a label before it is drawn, and one gets none.
        three = [made_at(600 - 60 * number - step) for step in range(3)]
        await PredictionWriter(engine).write(three)
        await store.add(three[0].id, "negative")
        await ask(engine, draws, NOW - timedelta(seconds=540 - 60 * number))
        await store.add(three[1].id, "positive")
        made += three
        counted.append(await sampled_labels(engine))
    assert counted == [0] * 8
    [blocks] = await rows(
        engine,
        "SELECT array_agg(n ORDER BY n) AS sizes FROM"
        " (SELECT count(*) AS n FROM review_items GROUP BY block) AS by_block",
    )
    assert blocks.sizes == [3, 21]
    # 14 of the first block's 21 items have a label, and 17 are needed.
    for number, last in enumerate(made[2:9:3], start=15):
        await store.add(last.id, "positive")
        assert await sampled_labels(engine) == (number if number >= 17 else 0)
    # From now on, each label of the block counts at once.
    await store.add(made[11].id, "positive")
    await store.add(made[11].id, "negative")
    assert await sampled_labels(engine) == 18


async def test_block_of_which_a_prediction_was_erased_counts_once_the_rest_is_labelled(
    engine: AsyncEngine,
) -> None:
    made = [made_at(20 + number) for number in range(25)]
    await PredictionWriter(engine).write(made)
    draws, store = ReviewDraws(engine), FeedbackStore(engine, NO_SPOOL)
    await ask(engine, draws)
    for gone in made[:7]:
        selector = Selector("prediction", str(gone.id))
        await erase(engine, HashKeys(), selector, ["salt"], Actor("ada", "here", ""))
    for item in made[7:]:
        await store.add(item.id, "positive")
    assert await sampled_labels(engine) == 18


async def test_prediction_that_nobody_labels_for_a_week_is_not_asked_for_any_more(
    engine: AsyncEngine,
) -> None:
    draws = ReviewDraws(engine)
    await PredictionWriter(engine).write([made_at(20 + number) for number in range(60)])
    span = TimeRange(NOW - timedelta(days=30), NOW + timedelta(days=30))
    first = await review_queue(Reader(engine), draws, Scope(span), 200, NOW)
    assert first.waiting == len(first.items) == 60
    later = NOW + timedelta(days=8)
    await PredictionWriter(engine).write([made_at(20 - 8 * 86_400)])
    queue = await review_queue(Reader(engine), draws, Scope(span), 200, later)
    # The old ones do not keep the queue from drawing.
    assert (queue.waiting, len(queue.items)) == (1, 1)
    assert queue.items[0].prediction_id not in {item.prediction_id for item in first.items}


async def test_disagreement_brings_a_prediction_in_and_its_label_stays_out_of_the_test(
    engine: AsyncEngine,
) -> None:
    pairs = [
        Comparison(
            new_id(NOW - timedelta(seconds=ago)),
            NOW - timedelta(seconds=ago),
            made_at(ago),
            made_at(ago, version="v2", sure=0.95 if number % 20 else 0.05),
        )
        for number, ago in enumerate(range(60, 1_260))
    ]
    await PredictionWriter(engine).write([p for c in pairs for p in (c.v1, c.v2)], pairs)
    queue = await ask(engine, ReviewDraws(engine))
    disputed = [item for item in queue.items if "disagreement" in item.reasons]
    assert len(disputed) > len(queue.items) / 8
    assert {item.model_version for item in disputed} == {"v1", "v2"}
    store = FeedbackStore(engine, NO_SPOOL)
    for item in queue.items:
        await store.add(item.prediction_id, "positive")
    ids = {item.prediction_id for item in queue.items if "random" in item.reasons}
    texts = sum(c.v1.id in ids or c.v2.id in ids for c in pairs)
    test = await ab_test(Reader(engine), None, NOW)
    assert test.paired is not None
    assert test.paired.labelled == texts
