"""The kept texts of a window that contribute most to its drift of content."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from uuid import UUID

import anyio.to_thread
from pydantic import Field
from sqlalchemy import ARRAY, Integer, Uuid, bindparam, func, select, true

from analytics.buckets import EPOCH, SMALLEST_FIRST
from analytics.content import MOST_CHARACTERS
from analytics.kept_texts import HOW_TO_KEEP, NEEDS_FEEDBACK, TextState
from analytics.reader import AnyRow, Reader
from analytics.scope import Scope
from analytics.shape import AnySelect, Query, Shape, per_shape
from analytics.subqueries import all_sentiments, counts, whole_sum
from analytics.tables import model_versions, predictions
from core.types import Version
from core.uuid7 import first_id, id_range
from stats.content import ContentFeature, describe
from stats.results import Result

# All predictions of a small window are looked at; of a larger one, the first ones of each of the
# slices, which have equally many predictions.
SLICES = 50
ROWS_OF_A_SLICE = 20
# A tenth of a second of a thread to describe them.
_ALL_CHARACTERS = 400_000
# Of the rollups by which slices are cut.
_MOST_BUCKETS = 1_500
_RANDOM_BITS = (1 << 62) - 1
NOT_KEPT = f"No text of this range is kept, so none can be shown. {HOW_TO_KEEP}."


class MovedText(Result):
    """A text that is unlike those of the reference, in the way in which the window is."""

    prediction_id: UUID
    created_at: datetime
    model_version: Version
    text: str | None = Field(description="null if it is not shown to this API key")
    contribution: float = Field(description="the mean over the texts of the window is `distance`")
    features: list[ContentFeature] = Field(description="that make up most of it, the largest first")


class MovedTexts(Result):
    """Of a sample of the window, the texts that contribute most to `content.distance`."""

    sample: int = Field(description="different texts that were looked at")
    items: list[MovedText]
    texts: TextState = Field(description="whether texts are shown")
    note: str | None = Field(description="why texts are not shown, and what to do; else null")


_slices = (
    func.unnest(bindparam("lows", type_=ARRAY(Uuid)), bindparam("highs", type_=ARRAY(Uuid)))
    .table_valued("low", "high", name="slices")
    .render_derived()
)
# Limited before cached answers are left out, because a slice may have nothing else.
_rows = (
    select(predictions, model_versions.c.version)
    .select_from(
        predictions.join(model_versions, model_versions.c.id == predictions.c.model_version_id)
    )
    .where(
        predictions.c.id >= _slices.c.low,
        predictions.c.id < _slices.c.high,
        predictions.c.created_at >= bindparam("since"),
        predictions.c.created_at < bindparam("until"),
        model_versions.c.version == func.coalesce(bindparam("version"), model_versions.c.version),
    )
    .order_by(predictions.c.id)
    .limit(bindparam("rows", type_=Integer))
    .lateral("rows")
)
# The conditions are those of the sampler in `analytics.content`.
_SAMPLE = (
    select(*(_rows.c[name] for name in ("id", "created_at", "version", "token_count", "text")))
    .select_from(_slices.join(_rows, true()))
    .where(
        ~_rows.c.cache_hit,
        ~_rows.c.truncated,
        _rows.c.text_characters <= MOST_CHARACTERS,
        _rows.c.text.is_not(None),
    )
)


@per_shape
def _counts(shape: Shape) -> AnySelect:
    facts = counts(shape)
    bucket = func.date_bin(shape.largest_bucket, facts.c.time, EPOCH).label("bucket")
    total = whole_sum(all_sentiments(facts)).label("predictions")
    return select(bucket, total).group_by("bucket").order_by("bucket")


async def moved_texts(
    reader: Reader,
    scope: Scope,
    sketches: Sequence[Sequence[bytes]],
    limit: int,
    *,
    shows_texts: bool,
) -> MovedTexts:
    """At most `limit` texts of `scope`; `sketches` are those of its reference and its own.

    Raises:
        DatabaseUnavailable: PostgreSQL is away.
    """
    rows = await _sample(reader, scope)
    sample, items = await anyio.to_thread.run_sync(_largest, rows, sketches, limit)
    texts: TextState = "not_kept"
    if sample:
        texts = "shown" if shows_texts else "needs_scope_feedback"
    if not shows_texts:
        items = [item.model_copy(update={"text": None}) for item in items]
    return MovedTexts(
        sample=sample,
        items=items,
        texts=texts,
        note={"shown": None, "not_kept": NOT_KEPT, "needs_scope_feedback": NEEDS_FEEDBACK}[texts],
    )


async def _sample(reader: Reader, scope: Scope) -> Sequence[AnyRow]:
    span = scope.span
    length = span.until - span.since
    sizes = (size for size in SMALLEST_FIRST if length / size <= _MOST_BUCKETS)
    size = next(sizes, SMALLEST_FIRST[-1])
    buckets = await reader.select(_counts(scope, size))
    total = sum(row.predictions for row in buckets)
    if not total:
        return ()
    low, high = id_range(span.since, span.until)
    is_small = total <= SLICES * ROWS_OF_A_SLICE
    between = [] if is_small else _quantiles([tuple(row) for row in buckets], size, SLICES)
    edges = [low, *(first_id(time) for time in between), high]
    return await reader.select(
        Query(
            _SAMPLE,
            {
                "lows": edges[:-1],
                "highs": edges[1:],
                "rows": SLICES * ROWS_OF_A_SLICE if is_small else ROWS_OF_A_SLICE,
                "since": span.since,
                "until": span.until,
                "version": scope.version,
            },
        )
    )


def _quantiles(
    buckets: Sequence[tuple[datetime, int]], size: timedelta, parts: int
) -> list[datetime]:
    """The times between `parts` parts of equally many predictions, evenly spread in a bucket."""
    ends = list(accumulate(count for _, count in buckets))
    found = []
    for part in range(1, parts):
        wanted = part * ends[-1] / parts
        place = bisect_left(ends, wanted)
        start, count = buckets[place]
        found.append(start + size * (1 - (ends[place] - wanted) / count))
    return found


def _largest(
    rows: Sequence[AnyRow], sketches: Sequence[Sequence[bytes]], limit: int
) -> tuple[int, list[MovedText]]:
    """How many different texts were described, and those of the largest contributions."""
    # In a thread and only now: importing SciPy takes half a second.
    from stats.content_drift import Texts, largest_contributions

    chosen: dict[str, AnyRow] = {}
    characters = 0
    # In the order of the random ends of their ids: the budget leaves out no part of the window.
    for row in sorted(rows, key=lambda row: row.id.int & _RANDOM_BITS):
        if row.text not in chosen and characters + len(row.text) <= _ALL_CHARACTERS:
            chosen[row.text] = row
            characters += len(row.text)
    features = [describe(row.text, row.token_count) for row in chosen.values()]
    reference, current = map(Texts.of, sketches)
    found = largest_contributions(reference, current, features, limit) if features else []
    sampled = list(chosen.values())
    items = [
        MovedText(
            prediction_id=sampled[one.text].id,
            created_at=sampled[one.text].created_at,
            model_version=sampled[one.text].version,
            text=sampled[one.text].text,
            contribution=one.contribution,
            features=one.features,
        )
        for one in found
    ]
    return len(sampled), items
