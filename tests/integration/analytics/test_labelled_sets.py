"""Labels are exported to files and imported from them, by prediction or by text."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.feedback.label_file import read_labels
from analytics.feedback.labelled_sets import (
    COLUMNS,
    GivenLabel,
    Imported,
    import_labels,
    labelled_rows,
)
from analytics.feedback.store import FeedbackStore
from analytics.hash_keys import HashKeys
from analytics.time_range import TimeRange
from core.types import Prediction, Sentiment
from datafiles.chunks import InvalidInput
from datafiles.formats import Format, Input
from datafiles.row_writer import write_rows
from tests.integration.predictions import PredictionWriter, make_prediction

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
SPAN = TimeRange(NOW - timedelta(days=1), NOW)
HARD = 'A "film", with a line\r\nbreak, 👍 and a lone\rreturn'
TEXTS = ["A joy.", HARD, "null", "A joy."]


@pytest.fixture
async def made(engine: AsyncEngine) -> list[Prediction]:
    predictions = [
        make_prediction(words, created_at=NOW - timedelta(minutes=number + 1))
        for number, words in enumerate(TEXTS)
    ]
    await PredictionWriter(engine, "full").write(predictions)
    return predictions


async def exported(engine: AsyncEngine) -> list[list[str | None]]:
    return [list(row) async for row in labelled_rows(engine, SPAN, None)]


async def stored(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(text("SELECT count(*) FROM feedback")) or 0)


@pytest.mark.parametrize("format_", list(Format))
async def test_exported_labels_come_back_exactly(
    engine: AsyncEngine, made: list[Prediction], tmp_path: Path, format_: Format
) -> None:
    store = FeedbackStore(engine, tmp_path)
    labels_given: tuple[Sentiment, ...] = ("negative", "positive", "neutral")
    for prediction, label in zip(made, labels_given, strict=False):
        await store.add(prediction.id, label)
    await store.add(made[0].id, "positive")
    before = await exported(engine)
    assert [row[1] for row in before] == ["neutral", "positive", "positive"]
    assert before[1][3] == HARD
    file = tmp_path / f"labels.{format_}"
    assert write_rows(file, format_, COLUMNS, before) == 3

    labels, refused = read_labels(Input(file, format_), datetime.now(UTC))
    same = await import_labels(engine, HashKeys(), labels, SPAN)
    assert (refused, same) == ([], (3, 0, []))
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM feedback"))
    assert await import_labels(engine, HashKeys(), labels, SPAN) == (3, 3, [])
    assert await exported(engine) == before


async def test_older_label_of_a_file_does_not_replace_a_newer_one(
    engine: AsyncEngine, made: list[Prediction]
) -> None:
    async def give(label: Sentiment, at: datetime) -> Imported:
        row = GivenLabel(1, made[0].id, None, label, at)
        return await import_labels(engine, HashKeys(), [row], SPAN)

    async def counting() -> str | None:
        [label] = [row[1] for row in await exported(engine) if row[0] == str(made[0].id)]
        return label

    exported_at, corrected_at = NOW - timedelta(hours=2), NOW - timedelta(hours=1)
    assert await give("positive", exported_at) == (1, 1, [])
    assert await give("negative", corrected_at) == (1, 1, [])
    assert await give("positive", exported_at) == (1, 0, [])
    assert await counting() == "negative"
    # Somebody changed the row of an export, and left its time.
    assert await give("neutral", corrected_at) == (1, 1, [])
    assert await counting() == "neutral"


@pytest.mark.parametrize("order", [1, -1])
async def test_of_several_rows_for_a_prediction_the_label_that_was_given_last_counts(
    engine: AsyncEngine, made: list[Prediction], order: int
) -> None:
    """A history of labels that begins with the newest brought the superseded ones in."""
    history: list[tuple[Sentiment, int]] = [("negative", 3), ("neutral", 2), ("positive", 1)]
    rows = [
        GivenLabel(line, made[0].id, None, label, NOW - timedelta(minutes=minutes))
        for line, (label, minutes) in enumerate(history[::order], 2)
    ]
    imported = await import_labels(engine, HashKeys(), rows, SPAN)
    assert (imported.labelled, imported.changed) == (1, 1)
    [label] = [row[1] for row in await exported(engine) if row[0] == str(made[0].id)]
    assert label == "positive"


@pytest.mark.parametrize("text_storage", ["full", "hash", "none"])
async def test_labels_of_texts_reach_all_their_predictions(
    engine: AsyncEngine, tmp_path: Path, text_storage: str
) -> None:
    predictions = [make_prediction(t, created_at=NOW - timedelta(minutes=1)) for t in TEXTS]
    await PredictionWriter(engine, text_storage).write(predictions)  # type: ignore[arg-type]
    file = tmp_path / "labels.jsonl"
    rows = [{"text": " A joy. ", "label": "Positive"}, {"text": "unknown", "label": "negative"}]
    file.write_text("\n".join(map(json.dumps, rows)))
    labels, _ = read_labels(Input(file, Format.jsonl), NOW)
    done = await import_labels(engine, HashKeys(), labels, SPAN)
    found = 0 if text_storage == "none" else 2
    assert (done.labelled, done.changed, await stored(engine)) == (found, found, found)
    assert done.refused[-1].line == 2
    assert "no prediction of the range has this text" in done.refused[-1].reason


async def test_bad_rows_are_refused_with_reasons_and_the_others_are_stored(
    engine: AsyncEngine, made: list[Prediction], tmp_path: Path
) -> None:
    file = tmp_path / "labels.csv"
    unknown = "01932c07-7d5e-7a63-9f8e-3f5ad11f6a01"
    file.write_text(
        "prediction_id,label,labelled_at\n"
        f"{made[0].id},positive,\n"
        f"{made[1].id},great,\n"
        "17,negative,\n"
        ",negative,\n"
        f"{unknown},negative,\n"
        f"{made[2].id},negative,2026-03-01 12:00\n"
        f"{made[3].id},negative,2026-03-02T13:00:00+01:00\n"
    )
    labels, refused = read_labels(Input(file, Format.csv), NOW)
    done = await import_labels(engine, HashKeys(), labels, SPAN)
    assert (done.labelled, done.changed) == (2, 2)
    assert {fault.line: fault.reason for fault in [*refused, *done.refused]} == {
        3: "label: great; known are negative, neg, neutral, neu, positive, pos",
        4: "prediction_id: 17 is none",
        5: "it has no prediction_id and no text",
        6: f"there is no prediction {unknown}",
        7: "labelled_at: 2026-03-01 12:00 is none",
    }
    assert [row[2] for row in await exported(engine)] == ["2026-03-02T12:00:00+00:00"] * 2


@pytest.mark.parametrize("type_", [pa.string(), pa.binary(), pa.large_string()])
def test_labels_may_be_short_and_in_any_case_in_every_format(
    tmp_path: Path, type_: pa.DataType
) -> None:
    written = [" Positive", "NEG", "neu ", "pos"]
    (tmp_path / "labels.csv").write_text("text,label\n" + "".join(f"A,{w}\n" for w in written))
    lines = [json.dumps({"text": "A", "label": word}) for word in written]
    (tmp_path / "labels.jsonl").write_text("\n".join(lines))
    words = pa.array(written).cast(type_)
    pq.write_table(pa.table({"text": ["A"] * 4, "label": words}), tmp_path / "labels.parquet")
    for format_ in Format.csv, Format.jsonl, Format.parquet:
        labels, refused = read_labels(Input(tmp_path / f"labels.{format_}", format_), NOW)
        read = [label.label for label in labels]
        assert (read, refused) == (["positive", "negative", "neutral", "positive"], [])


# The driver writes the first and the last time of Python as infinities.
@pytest.mark.parametrize(
    "at",
    [
        *("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+00:00"),
        *("2050-01-01T00:00:00+00:00",),
        *("9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59.999999+00:00"),
    ],
)
def test_time_at_which_nobody_labelled_is_refused_with_its_row(tmp_path: Path, at: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(f"text,label,labelled_at\nA joy.,positive,{at}\nA joy.,positive,\n")
    labels, [refused] = read_labels(Input(file, Format.csv), NOW)
    assert (len(labels), refused) == (1, (2, f"labelled_at: {at} is none"))


def test_times_of_parquet_are_labels_or_refused_with_their_rows(tmp_path: Path) -> None:
    file = tmp_path / "labels.parquet"
    microseconds = [0, 253_402_300_800_000_000, 1 << 62, -(1 << 62), -62_135_596_801_000_000, None]
    for zone in ("UTC", "+23:59", "Nowhere/City"):
        times = pa.array(microseconds, pa.int64()).cast(pa.timestamp("us", zone))
        texts = {"text": ["A joy."] * 6, "label": ["positive"] * 6}
        pq.write_table(pa.table({**texts, "labelled_at": times}), file)
        labels, refused = read_labels(Input(file, Format.parquet), NOW)
        assert [given.at for given in labels] == [datetime(1970, 1, 1, tzinfo=UTC), NOW]
        assert [row.line for row in refused] == [2, 3, 4, 5]


def test_number_too_large_for_this_machine_is_refused_with_its_row(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text('{"label":"positive","text":1e999}\n{"label":"positive","text":"A joy."}\n')
    labels, [refused] = read_labels(Input(file, Format.jsonl), NOW)
    assert [given.text for given in labels] == ["A joy."]
    assert (refused.line, refused.reason.startswith("invalid JSON: number is inf")) == (1, True)


def test_file_without_ids_and_texts_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("label\npositive\n")
    with pytest.raises(InvalidInput, match="no column prediction_id, and no column text"):
        read_labels(Input(file, Format.csv), NOW)


@pytest.mark.parametrize("last", ["positive", "no label"])
def test_file_of_more_rows_than_are_read_is_refused(tmp_path: Path, last: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("text,label\na,positive\nb,negative\n" + f"c,{last}\n")
    with pytest.raises(InvalidInput, match="more than 2 rows; cut it into smaller files"):
        read_labels(Input(file, Format.csv), NOW, most_rows=2)
