"""Logged texts, as the log's writer stores them, are compared with a candidate's answers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
import pytest
from msgspec.structs import replace
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from statsmodels.stats.contingency_tables import mcnemar

from analytics.feedback.store import FeedbackStore
from analytics.hash_keys import HashKeys, add_key
from analytics.logged_texts import LoggedTexts, LogSelection, read_texts, still_logged
from analytics.privacy.erase import Actor, erase
from analytics.privacy.selection import Selector
from analytics.time_range import TimeRange
from core.keyed_hash import text_digest
from core.types import (
    PREDICT_ENDPOINTS,
    SENTIMENTS,
    VERSIONS,
    Endpoint,
    LongText,
    ModelVersion,
    Prediction,
    Sentiment,
    Version,
)
from runners.windows import windows_of
from scoring.replay.comparison import compare, compare_each, surest_flips
from scoring.replay.observations import Observation, observe
from scoring.replay.result import flipped_texts
from scoring.scorer import LoadedModel
from tests.integration.predictions import PredictionWriter, make_prediction
from tests.unit.runners.test_windows import Model, words

START = datetime(2026, 3, 1, 22, tzinfo=UTC)
HOURS = 5
END = START + timedelta(hours=HOURS)
NO_SPOOL = Path("/nowhere")
# Short ones that the candidate calls differently, and long ones that it may read in windows.
TEXTS = [*(f"w{number}" for number in range(0, 60, 2)), *(words(40 + more) for more in range(5))]
WINDOW_WORDS = 32


def some_prediction(numbers: random.Random) -> Prediction:
    of = numbers.choice(TEXTS)
    sure = 0.5 + numbers.random() / 2
    said: Sentiment = numbers.choice(("negative", "positive"))
    other: Sentiment = "negative" if said == "positive" else "positive"
    version = numbers.choice(VERSIONS)
    made = make_prediction(
        of,
        version=version,
        scores={said: sure, other: 1 - sure},
        created_at=START + timedelta(seconds=numbers.uniform(0, HOURS * 3_600)),
        endpoint=numbers.choice(PREDICT_ENDPOINTS),
    )
    model = ModelVersion(version, f"r{numbers.randrange(2)}", numbers.choice(("fake", "other")))
    is_long, in_windows = len(of.split()) > WINDOW_WORDS, numbers.random() < 0.4
    return replace(
        made,
        model=model,
        windows=2 if is_long and in_windows else 1,
        truncated=is_long and not in_windows,
    )


async def written(engine: AsyncEngine, count: int) -> list[Prediction]:
    """Predictions, whose hashes have two keys, and labels of some of them, also corrected ones."""
    numbers = random.Random(3)
    made = [some_prediction(numbers) for _ in range(count)]
    await PredictionWriter(engine, "full").write(made[: count // 2])
    async with engine.begin() as connection:
        await add_key(connection)
    await PredictionWriter(engine, "full").write(made[count // 2 :])
    store = FeedbackStore(engine, NO_SPOOL)
    for prediction in numbers.choices(made, k=60):
        await store.add(prediction.id, numbers.choice(SENTIMENTS))
    return made


def selected(
    since: datetime = START,
    until: datetime = END,
    endpoints: Sequence[Endpoint] = PREDICT_ENDPOINTS,
    version: Version | None = None,
) -> LogSelection:
    return LogSelection(TimeRange(since, until), endpoints, version)


async def read(engine: AsyncEngine, selection: LogSelection, limit: int = 1_000) -> LoggedTexts:
    return await read_texts(engine, selection, limit=limit, default_long_text="truncate")


def observed(found: LoggedTexts) -> list[Observation]:
    return observe(found.texts, LoadedModel(Model(), "fake"), streams=2)


@cache
def candidate_of(of: str, long_text: LongText) -> tuple[str, float]:
    model = Model()
    [encoding] = model.encode([of])
    windows = windows_of(encoding, long_text)
    result = windows.join(model.compute(windows.encodings))
    return result.sentiment, result.confidence


def as_frame(made: Sequence[Prediction]) -> pd.DataFrame:
    rows = []
    for prediction in made:
        mode: LongText = "windows" if prediction.windows > 1 else "truncate"
        sentiment, confidence = candidate_of(prediction.text, mode)
        rows.append(
            {
                "id": prediction.id, "text": prediction.text, "at": prediction.created_at,
                "endpoint": prediction.endpoint, "version": prediction.version,
                "by": (prediction.version, prediction.model.revision),
                "served": prediction.sentiment, "sure": prediction.confidence,
                "candidate": sentiment, "candidate_sure": confidence,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def check(result: Any, frame: pd.DataFrame) -> None:
    """The numbers of a comparison are those of a plain computation."""
    once = frame.sort_values("id").groupby("text").tail(1)
    assert (result.predictions, result.texts) == (len(frame), len(once))
    by_predictions = frame.groupby(["served", "candidate"]).size().to_dict()
    by_texts = once.groupby(["served", "candidate"]).size().to_dict()
    for cell in result.table:
        pair = (cell.served, cell.candidate)
        assert cell.predictions == by_predictions.pop(pair, 0)
        assert cell.texts == by_texts.pop(pair, 0)
    assert not by_predictions
    assert not by_texts
    agreeing = frame.served == frame.candidate
    assert result.agreement_by_predictions == pytest.approx(agreeing.mean())
    assert result.agreement == pytest.approx((once.served == once.candidate).mean())
    for mix in result.mix:
        assert mix.served == pytest.approx((frame.served == mix.sentiment).mean())
        assert mix.candidate == pytest.approx((frame.candidate == mix.sentiment).mean())
    assert result.served_confidence == pytest.approx(frame.sure.mean(), abs=1e-6)
    assert result.candidate_confidence == pytest.approx(frame.candidate_sure.mean())
    differences = once.candidate_sure - once.sure
    assert result.confidence_difference == pytest.approx(differences.mean(), abs=1e-6)
    assert sum(result.served_histogram) == sum(result.candidate_histogram) == len(once)
    labelled = once.dropna(subset="label")
    of = result.labelled
    assert of.texts == len(labelled)
    if not of.texts:
        return
    served, candidate = labelled.served == labelled.label, labelled.candidate == labelled.label
    assert of.served_accuracy == pytest.approx(served.mean())
    assert of.difference == pytest.approx(candidate.mean() - served.mean())
    table = [[(served & candidate).sum(), (served & ~candidate).sum()],
             [(~served & candidate).sum(), (~served & ~candidate).sum()]]  # fmt: skip
    assert [
        [of.both_right, of.only_served_right],
        [of.only_candidate_right, of.none_right],
    ] == table
    assert of.mcnemar_p == pytest.approx(float(mcnemar(table, exact=True).pvalue))


async def labels_of(engine: AsyncEngine, ids: set[UUID]) -> dict[str, str]:
    """The label of each text that was given last to any of these predictions."""
    async with engine.connect() as connection:
        rows = await connection.execute(
            text(
                "SELECT p.id, p.text, f.label FROM feedback f JOIN predictions p"
                " ON p.id = f.prediction_id ORDER BY f.id"
            )
        )
        return {row.text: row.label for row in rows if row.id in ids}


async def test_numbers_equal_a_plain_computation(engine: AsyncEngine) -> None:
    frame = as_frame(await written(engine, 600))
    middle = START + timedelta(hours=HOURS / 2)
    parts: list[tuple[LogSelection, pd.Series]] = [
        (selected(), frame.id == frame.id),
        (selected(since=middle), frame["at"] >= middle),
        (selected(until=middle, version="v2"), (frame["at"] < middle) & (frame.version == "v2")),
        (selected(endpoints=["/predict"]), frame.endpoint == "/predict"),
    ]
    for selection, is_selected in parts:
        part = frame[is_selected]
        found = await read(engine, selection)
        assert (found.predictions, found.without_text) == (len(part), 0)
        assert found.sampled_share == 1
        assert {logged.text for logged in found.texts} == set(part.text)
        part = part.assign(label=part.text.map(await labels_of(engine, set(part.id))))
        observations = observed(found)
        check(compare(observations), part)
        each = compare_each(observations)
        assert {(by.version, by.revision) for by in each} == set(part.by)
        for by, comparison in each.items():
            # A label belongs to the text, whichever of the models answered.
            check(comparison, part[part.by == (by.version, by.revision)])


async def test_sample_has_all_predictions_of_its_texts(engine: AsyncEngine) -> None:
    numbers = random.Random(5)
    made = [some_prediction(numbers) for _ in range(200)]
    await PredictionWriter(engine, "full").write(made)
    whole = await read(engine, selected())
    samples = [await read(engine, selected(), limit) for limit in (1, 7, 20, len(TEXTS))]
    asked = Counter(prediction.text for prediction in made)
    for limit, found in zip((1, 7, 20, len(TEXTS)), samples, strict=True):
        assert [logged.text for logged in found.texts] == [
            logged.text for logged in whole.texts[:limit]
        ]
        assert all(logged.predictions == asked[logged.text] for logged in found.texts)
        assert (found.predictions, found.models) == (len(made), whole.models)
        digests = sorted(int.from_bytes(text_digest(of)) for of in asked)
        share = digests[limit] / 2**256 if limit < len(asked) else 1
        assert found.sampled_share == pytest.approx(share)
        assert found.different_texts <= len(made)
    assert whole.different_texts == len(asked)


async def test_erased_and_expired_texts_are_not_read(engine: AsyncEngine) -> None:
    """A text that is erased after it was read is not shown either."""
    made = [
        make_prediction(of, created_at=START + timedelta(seconds=second))
        for second, of in enumerate(("mine", "mine", "yours", "ours"))
    ]
    await PredictionWriter(engine, "full").write(made)
    flips = surest_flips(observed(await read(engine, selected())))
    ids = {seen.served.newest_id for seen in flips}
    assert await still_logged(engine, ids) == ids == {made[1].id, made[2].id, made[3].id}
    actor = Actor("ana", "a machine", "ticket 7")
    await erase(engine, HashKeys(), Selector("text", "mine"), [], actor)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE predictions SET text = NULL WHERE text = 'ours'"))
    assert await still_logged(engine, ids) == {made[2].id}
    assert [flip.text for flip in flipped_texts(flips, {made[2].id})] == ["yours"]
    found = await read(engine, selected())
    assert [logged.text for logged in found.texts] == ["yours"]
    assert (found.predictions, found.without_text) == (1, 1)


async def test_log_without_texts_has_predictions_alone(engine: AsyncEngine) -> None:
    await PredictionWriter(engine, "hash").write([make_prediction(created_at=START)])
    found = await read(engine, selected())
    assert (found.texts, found.predictions, found.without_text) == ([], 0, 1)
