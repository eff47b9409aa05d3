"""Labelled sets: the labels of a range as rows, and rows of a file as labels of predictions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import case, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from analytics.feedback.store import store_labels
from analytics.hash_keys import HashKeys
from analytics.rollups import WRITERS_LOCK
from analytics.tables import feedback, model_versions, predictions, review_items
from analytics.time_range import TimeRange
from core.keyed_hash import text_digest
from core.types import Sentiment
from core.uuid7 import id_range, time_of

COLUMNS = (
    *("prediction_id", "label", "labelled_at", "text", "model_version", "model_revision"),
    *("sentiment", "confidence", "probability"),
)
_ROWS_AT_A_TIME = 2_000
_TEXTS_AT_A_TIME = 5_000


class GivenLabel(NamedTuple):
    """A row of a file: of a prediction by its id, or else of the predictions of a text."""

    line: int
    prediction_id: UUID | None
    text: str | None
    label: Sentiment
    at: datetime


class Refused(NamedTuple):
    line: int
    reason: str


class Imported(NamedTuple):
    """`labelled` predictions have a label of the file; of them `changed` had another, or none."""

    labelled: int
    changed: int
    refused: list[Refused]


async def labelled_rows(
    engine: AsyncEngine, span: TimeRange, version: str | None
) -> AsyncIterator[Sequence[str | None]]:
    """The newest label of each prediction of `span`, as `COLUMNS`, by the prediction's id.

    Raises:
        DATABASE_FAILURES: PostgreSQL is away.
    """
    low, high = id_range(span.since, span.until)
    of_label = feedback.c.prediction_id
    latest = (
        select(of_label, feedback.c.label, feedback.c.created_at.label("labelled_at"))
        .ext(distinct_on(of_label))
        .where(of_label >= low, of_label < high)
        .order_by(of_label, feedback.c.id.desc())
        .subquery("latest")
    )
    statement = (
        select(
            latest.c.prediction_id,
            latest.c.label,
            latest.c.labelled_at,
            predictions.c.text,
            model_versions.c.version,
            model_versions.c.revision,
            predictions.c.sentiment,
            predictions.c.confidence,
            case((review_items.c.counts, review_items.c.probability)),
        )
        .join_from(latest, predictions, predictions.c.id == latest.c.prediction_id)
        .join(model_versions, model_versions.c.id == predictions.c.model_version_id)
        .outerjoin(review_items, review_items.c.prediction_id == predictions.c.id)
        .where(
            predictions.c.id >= low,
            predictions.c.id < high,
            predictions.c.created_at >= span.since,
            predictions.c.created_at < span.until,
        )
        .order_by(predictions.c.id)
    )
    if version is not None:
        statement = statement.where(model_versions.c.version == version)
    async with engine.connect() as connection:
        rows = await connection.stream(statement, execution_options={"yield_per": _ROWS_AT_A_TIME})
        async for row in rows:
            yield [_written(value) for value in row]


def _written(value: object) -> str | None:
    if value is None:
        return None
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)


async def import_labels(
    engine: AsyncEngine, hashes: HashKeys, labels: Sequence[GivenLabel], span: TimeRange
) -> Imported:
    """Give the labels to their predictions.

    One that a prediction has already changes nothing, and neither does one that is older than the
    label that counts, as of a set that was written before somebody corrected it.

    A label of a text is that of its predictions in `span`: all have to be read for it. Of several
    rows for a prediction the label that was given last counts, and of one time the last row.

    Raises:
        DATABASE_FAILURES: PostgreSQL is away; perhaps a part is stored.
    """
    refused: list[Refused] = []
    chosen: dict[UUID, tuple[Sentiment, datetime]] = {}
    await hashes.refresh(engine)
    async with engine.connect() as connection:
        texts = sorted({row.text for row in labels if row.prediction_id is None and row.text})
        of_text: dict[str, list[UUID]] = {}
        for start in range(0, len(texts), _TEXTS_AT_A_TIME):
            part = texts[start : start + _TEXTS_AT_A_TIME]
            of_text |= await _predictions_of(connection, hashes, part, span)
        known = await _known(connection, [row.prediction_id for row in labels if row.prediction_id])
    for row in labels:
        if row.prediction_id is not None:
            ids = [row.prediction_id] if row.prediction_id in known else []
            reason = f"there is no prediction {row.prediction_id}"
        else:
            ids = of_text.get(row.text or "", [])
            reason = (
                "no prediction of the range has this text, or its text is neither kept nor hashed"
            )
        if not ids:
            refused.append(Refused(row.line, reason))
        for id_ in ids:
            # A later label replaces an earlier one, also in the order.
            if id_ not in chosen or chosen[id_][1] <= row.at:
                chosen.pop(id_, None)
                chosen[id_] = row.label, row.at
    given = [(id_, label, at) for id_, (label, at) in chosen.items()]
    changed = 0
    for start in range(0, len(given), _ROWS_AT_A_TIME):
        rows = given[start : start + _ROWS_AT_A_TIME]
        async with engine.begin() as connection:
            # Before: a label that comes meanwhile would be replaced by an older one.
            await connection.execute(WRITERS_LOCK)
            labelled_at = await _labelled_at(connection, [id_ for id_, _, _ in rows])
            if newer := [row for row in rows if row[2] >= labelled_at.get(row[0], row[2])]:
                changed += await store_labels(connection, newer)
    return Imported(len(given), changed, refused)


async def _labelled_at(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, datetime]:
    """When the label that counts was given, of those predictions that have one."""
    latest = (
        select(feedback.c.prediction_id, feedback.c.created_at)
        .ext(distinct_on(feedback.c.prediction_id))
        .where(feedback.c.prediction_id.in_(ids))
        .order_by(feedback.c.prediction_id, feedback.c.id.desc())
    )
    rows = await connection.execute(latest)
    return {row.prediction_id: row.created_at for row in rows}


async def _known(connection: AsyncConnection, ids: Sequence[UUID]) -> set[UUID]:
    known: set[UUID] = set()
    for start in range(0, len(ids), _ROWS_AT_A_TIME):
        part = ids[start : start + _ROWS_AT_A_TIME]
        found = select(predictions.c.id).where(predictions.c.id.in_(part))
        known |= set(await connection.scalars(found))
    return known


async def _predictions_of(
    connection: AsyncConnection, hashes: HashKeys, texts: Sequence[str], span: TimeRange
) -> Mapping[str, list[UUID]]:
    """The predictions of each text in the range, by its hash of any key or by the text itself."""
    text_of: dict[bytes, str] = {}
    for words in texts:
        digest = text_digest(words)
        text_of |= dict.fromkeys([digest, *hashes.all_hashes([digest])], words)
    low, high = id_range(span.since, span.until)
    columns = predictions.c
    statement = select(columns.id, columns.text_sha256, columns.text).where(
        columns.id >= low, columns.id < high, columns.text_sha256.is_not(None)
    )
    wanted = set(texts)
    found: dict[str, list[UUID]] = defaultdict(list)
    rows = await connection.stream(statement, execution_options={"yield_per": _ROWS_AT_A_TIME})
    async for row in rows:
        known = row.text if row.text in wanted else text_of.get(row.text_sha256)
        if known is not None and span.since <= time_of(row.id) < span.until:
            found[known].append(row.id)
    return found
