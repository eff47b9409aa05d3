"""The different texts of the prediction log with the answers to them: all, or a uniform sample."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import bindparam, select, text, true
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from analytics.reader import AnyRow
from analytics.shape import Ends
from analytics.subqueries import in_range
from analytics.tables import feedback, model_versions, predictions
from analytics.time_range import TimeRange
from core.keyed_hash import text_digest
from core.types import Endpoint, LongText, ModelVersion, Sentiment, Version
from core.uuid7 import id_range, time_of

# A page of the longest texts, of 200,000 characters each, is 100 MB.
PAGE_ROWS = 500
STATEMENT_MS = 30_000
_DIGESTS = 1 << 256
_COLUMNS = ("id", "model_version_id", "sentiment", "confidence", "windows", "truncated", "text")
_READ_ONLY = text("SET TRANSACTION READ ONLY")
_LIMIT_TIME = text(f"SET LOCAL statement_timeout = {STATEMENT_MS}")

_page = (
    select(*(predictions.c[name] for name in _COLUMNS))
    .where(
        *in_range(predictions, Ends(*(bindparam(name) for name in Ends._fields))),
        predictions.c.id > bindparam("after"),
        predictions.c.endpoint.in_(bindparam("endpoints", expanding=True)),
        predictions.c.model_version_id.in_(bindparam("models", expanding=True)),
    )
    .order_by(predictions.c.id)
    .limit(PAGE_ROWS)
    .subquery("page")
)
_newest_label = (
    select(feedback.c.id.label("label_id"), feedback.c.label)
    .where(feedback.c.prediction_id == _page.c.id)
    .order_by(feedback.c.id.desc())
    .limit(1)
    .lateral("newest_label")
)
_PAGE = (
    select(*_page.c, *_newest_label.c)
    .select_from(_page.outerjoin(_newest_label, true()))
    .order_by(_page.c.id)
)
_STILL_LOGGED = select(predictions.c.id).where(
    predictions.c.id.in_(bindparam("ids", expanding=True)), predictions.c.text.is_not(None)
)


class Answered(NamedTuple):
    """What answered a text: weights, with any engine, and how they read it if it is long."""

    version: Version
    revision: str
    long_text: LongText


@dataclass(slots=True)
class Answers:
    """The predictions of one text by one `Answered`; the newest one is also by itself."""

    newest_id: UUID
    sentiment: Sentiment
    confidence: float
    counts: Counter[Sentiment]
    confidence_sum: float

    @property
    def predictions(self) -> int:
        return self.counts.total()


@dataclass(slots=True)
class LoggedText:
    """A text with its predictions, and the label that was given last to any of them."""

    text: str
    answers: dict[Answered, Answers] = field(default_factory=dict)
    label: Sentiment | None = None
    label_id: int = 0

    @property
    def predictions(self) -> int:
        return sum(answers.predictions for answers in self.answers.values())


@dataclass(frozen=True, slots=True)
class LogSelection:
    """The predictions that are read: `endpoints` by their names, of one version or of both."""

    span: TimeRange
    endpoints: Sequence[Endpoint]
    version: Version | None = None


@dataclass(slots=True)
class LoggedTexts:
    """The texts of a selection, with all predictions of each.

    With more than `limit` different texts, they are those with the smallest SHA-256: a uniform
    sample of the texts, which is the same in each run. `sampled_share` is the share of all digests
    that are as small, and so the probability of each text to be in the sample.
    """

    limit: int
    texts: list[LoggedText] = field(default_factory=list)
    predictions: int = 0  # of the selection that have a text
    without_text: int = 0
    sampled_share: float = 1.0
    models: Counter[ModelVersion] = field(default_factory=Counter)  # with a text

    @property
    def sampled_predictions(self) -> int:
        return sum(logged.predictions for logged in self.texts)

    @property
    def different_texts(self) -> int:
        """Of the selection; an estimate if the texts are a sample (Bar-Yossef 2002).

        There are no more of them than predictions, which are counted.
        """
        return min(round(len(self.texts) / self.sampled_share), self.predictions)


class _Sample:
    """Keeps the texts with the `limit` smallest digests, in one pass and in bounded memory.

    A text that was dropped is never kept again, because the threshold only falls; so each text that
    is kept in the end has all of its predictions.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[int, LoggedText] = {}
        self._largest_first: list[int] = []
        self.threshold = _DIGESTS

    def find(self, of: str) -> LoggedText | None:
        """The place of a text's predictions; None if it is not in the sample."""
        digest = int.from_bytes(text_digest(of))
        if digest >= self.threshold:
            return None
        found = self._kept.get(digest)
        if found is None:
            found = self._kept[digest] = LoggedText(of)
            heapq.heappush(self._largest_first, -digest)
            if len(self._kept) > self._limit:
                self.threshold = -heapq.heappop(self._largest_first)
                del self._kept[self.threshold]
                if digest == self.threshold:
                    return None
        return found

    def texts(self) -> list[LoggedText]:
        """By their digests, so that the first ones are a uniform sample of them."""
        return [self._kept[digest] for digest in sorted(self._kept)]


async def read_texts(
    engine: AsyncEngine,
    selection: LogSelection,
    *,
    limit: int,
    default_long_text: LongText,
    progress: Callable[[float], object] = lambda _share: None,
) -> LoggedTexts:
    """Read the texts of a selection, page by page, each in a transaction that may only read.

    `default_long_text` is how a text was read that was not too long for its model. `progress` gets
    the share of the time range that is read.

    Raises:
        DATABASE_FAILURES: PostgreSQL is away, or a page takes too long.
    """
    span = selection.span
    found, sample = LoggedTexts(limit), _Sample(limit)
    async with _reading(engine) as connection:
        models = await _models(connection, selection.version)
    low, high = id_range(span.since, span.until)
    parameters = {
        **Ends(span.since, span.until, low, high)._asdict(),
        "endpoints": list(selection.endpoints),
        "models": list(models),
    }
    after, rows = UUID(int=0), PAGE_ROWS
    while rows == PAGE_ROWS:
        async with _reading(engine) as connection:
            page = (await connection.execute(_PAGE, {**parameters, "after": after})).all()
        rows = len(page)
        for row in page:
            if row.text is None:
                found.without_text += 1
                continue
            model = models[row.model_version_id]
            found.predictions += 1
            found.models[model] += 1
            if (logged := sample.find(row.text)) is not None:
                _add(logged, row, model, default_long_text)
        if page:
            after = page[-1].id
            progress((time_of(after) - span.since) / (span.until - span.since))
    found.texts = sample.texts()
    found.sampled_share = sample.threshold / _DIGESTS
    return found


async def still_logged(engine: AsyncEngine, ids: Collection[UUID]) -> set[UUID]:
    """Those predictions that have their text still: it is neither erased nor expired.

    Raises:
        DATABASE_FAILURES: PostgreSQL is away.
    """
    async with _reading(engine) as connection:
        return set(await connection.scalars(_STILL_LOGGED, {"ids": list(ids)}))


@asynccontextmanager
async def _reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction of its own, so that none keeps PostgreSQL from removing dead rows."""
    async with engine.connect() as connection:
        await connection.execute(_READ_ONLY)
        await connection.execute(_LIMIT_TIME)
        yield connection


async def _models(connection: AsyncConnection, version: Version | None) -> dict[int, ModelVersion]:
    columns = model_versions.c
    rows = await connection.execute(
        select(columns.id, columns.version, columns.revision, columns.engine)
    )
    return {id_: ModelVersion(*model) for id_, *model in rows if version in {None, model[0]}}


def _add(logged: LoggedText, row: AnyRow, model: ModelVersion, default: LongText) -> None:
    long_text = _long_text_of(row, default)
    answered = Answered(model.version, model.revision, long_text)
    answers = logged.answers.get(answered)
    if answers is None:
        answers = logged.answers[answered] = Answers(
            row.id, row.sentiment, row.confidence, Counter(), 0.0
        )
    # Rows come by their ids, so the last one is the newest.
    answers.newest_id, answers.sentiment, answers.confidence = row.id, row.sentiment, row.confidence
    answers.counts[row.sentiment] += 1
    answers.confidence_sum += row.confidence
    if row.label is not None and row.label_id > logged.label_id:
        logged.label, logged.label_id = row.label, row.label_id


def _long_text_of(row: AnyRow, default: LongText) -> LongText:
    if row.windows > 1:
        return "windows"
    return "truncate" if row.truncated else default
