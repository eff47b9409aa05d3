"""The drift of content lists the kept texts that moved most."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.drift import DriftOfTraffic, drift
from analytics.log.records import TextStorage
from analytics.moved_texts import NOT_KEPT, ROWS_OF_A_SLICE, SLICES
from analytics.reader import Reader
from analytics.scope import Scope
from analytics.tables import content_sketches
from analytics.time_range import TimeRange
from core.types import Prediction, Version
from core.uuid7 import new_id
from stats.content import ContentSketch, describe
from tests.integration.predictions import PredictionWriter, make_prediction

NOW = datetime(2026, 3, 2, 12, 30, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)
STRANGE_TEXTS = 40
STRANGE = "Größe 38, Ärmel zu kurz: Rücksendung über Österreich!"


def made_at(minutes_ago: float, text: str, version: Version = "v1") -> Prediction:
    at = NOW - timedelta(minutes=minutes_ago)
    tokens = 2 + (3 if text.startswith(STRANGE) else 1) * len(text.split())
    made = make_prediction(text, created_at=at, version=version)
    return replace(made, token_count=tokens)


def usual(number: int) -> str:
    words = ["the", "film", "was", "fine", "and", "my", "dog", "did", "like", "it"]
    return " ".join(words[number % 7 :] + words[: number % 5]) + "." * (number % 2)


async def store_sketch(engine: AsyncEngine, at: datetime, made: list[Prediction]) -> None:
    sketch = ContentSketch()
    for prediction in made:
        sketch.add(describe(prediction.text, prediction.token_count))
    row = {"id": new_id(at), "created_at": at, "version": "v1", "texts": sketch.texts}
    async with engine.begin() as connection:
        await connection.execute(content_sketches.insert(), row | {"sketch": sketch.to_bytes()})


async def write_drift(
    engine: AsyncEngine, kept: TextStorage, *, extra: int = 0
) -> list[Prediction]:
    """An hour of usual texts, then one of which a sixth is strange; returns the strange ones."""
    texts = 200
    before = [made_at(65 + number / 4, usual(number)) for number in range(texts)]
    now = [made_at(5 + 50 * number / texts, usual(number)) for number in range(texts)]
    strange = [made_at(7 + number, f"{STRANGE} {number}") for number in range(STRANGE_TEXTS)]
    await store_sketch(engine, NOW - 1.5 * HOUR, before)
    await store_sketch(engine, NOW - HOUR / 2, now + strange)
    more = [
        made_at(1 + 58 * number / extra, usual(number), "v2" if number % 2 else "v1")
        for number in range(extra)
    ]
    await PredictionWriter(engine, kept).write([*before, *now, *strange, *more])
    return strange


async def read(engine: AsyncEngine, texts: int = STRANGE_TEXTS, **given: bool) -> DriftOfTraffic:
    scope = Scope(TimeRange(NOW - HOUR, NOW), "v1")
    before = TimeRange(NOW - 2 * HOUR, NOW - HOUR)
    return await drift(Reader(engine), scope, before, texts=texts, **given)


async def test_kept_texts_that_moved_most_are_listed_with_what_moved(engine: AsyncEngine) -> None:
    strange = await write_drift(engine, "full")
    # Repeats of a text are one; cached and truncated answers are not in the sketches either.
    again = made_at(3, f"{STRANGE} 0")
    for other in (
        again,
        replace(made_at(3, f"{STRANGE} cached"), cache_hit=True),
        replace(made_at(3, f"{STRANGE} truncated"), truncated=True),
        made_at(3, f"{STRANGE} of v2", "v2"),
        made_at(90, f"{STRANGE} of the reference"),
    ):
        await PredictionWriter(engine, "full").write([other])
    found = await read(engine)
    moved = found.moved_texts
    assert moved is not None
    assert found.content.verdict == "significant"
    assert {item.text for item in moved.items} == {made.text for made in strange}
    assert {item.prediction_id for item in moved.items} <= {m.id for m in [*strange, again]}
    assert moved.items[0].features[0] == "tokens_per_word"
    assert [item.contribution for item in moved.items] == sorted(
        (item.contribution for item in moved.items), reverse=True
    )
    assert (moved.texts, moved.note) == ("shown", None)
    assert len({item.text for item in (await read(engine, 2)).moved_texts.items}) == 2  # type: ignore[union-attr]


async def test_texts_are_not_shown_to_keys_that_may_not_label(engine: AsyncEngine) -> None:
    await write_drift(engine, "full")
    moved = (await read(engine, shows_texts=False)).moved_texts
    assert moved is not None
    assert (moved.texts, {item.text for item in moved.items}) == ("needs_scope_feedback", {None})
    assert len(moved.items) == STRANGE_TEXTS


@pytest.mark.parametrize("kept", ["hash", "none"])
async def test_texts_that_are_not_kept_are_said_to_be_missing(
    engine: AsyncEngine, kept: TextStorage
) -> None:
    await write_drift(engine, kept)
    moved = (await read(engine)).moved_texts
    assert moved is not None
    assert (moved.sample, moved.items, moved.texts, moved.note) == (0, [], "not_kept", NOT_KEPT)
    assert "TEXT_STORAGE=full" in NOT_KEPT


async def test_window_without_drift_lists_no_texts(engine: AsyncEngine) -> None:
    made = [made_at(65 + number / 2, usual(number)) for number in range(60)]
    await store_sketch(engine, NOW - 1.5 * HOUR, made)
    await store_sketch(engine, NOW - HOUR / 2, made)
    await PredictionWriter(engine, "full").write(made)
    assert (await read(engine)).moved_texts is None
    await write_drift(engine, "full")
    assert (await read(engine, 0)).moved_texts is None


async def test_large_window_is_sampled_all_over(engine: AsyncEngine) -> None:
    await write_drift(engine, "full", extra=3_000)
    moved = (await read(engine, 20)).moved_texts
    assert moved is not None
    assert moved.sample <= SLICES * ROWS_OF_A_SLICE
    times = sorted(item.created_at for item in moved.items)
    assert times[-1] - times[0] > HOUR / 3
    assert moved.items[0].text is not None
    assert moved.items[0].text.startswith(STRANGE)
