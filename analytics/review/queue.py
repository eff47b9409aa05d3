"""The review queue: what to label next, why, and with which probability it was chosen."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field
from sqlalchemy import Integer, and_, bindparam, exists, func, literal_column, select

from analytics.kept_texts import HOW_TO_KEEP, NEEDS_FEEDBACK, TextState
from analytics.reader import AnyRow, Reader
from analytics.review.draw import ReviewDraws
from analytics.scope import Scope, Window
from analytics.shape import Query
from analytics.tables import (
    feedback,
    model_versions,
    predictions,
    review_draws,
    review_items,
)
from core.types import SENTIMENTS, VERSIONS, Endpoint, Sentiment, Version
from core.uuid7 import id_range
from stats.results import Result

Reason = Literal["random", "disagreement", "low_confidence", "unusual"]
# A draw is as good as labelled when this share of it is left: some texts have no right label.
REFILL_SHARE = 0.2
NOT_KEPT = (
    f"TEXT_STORAGE keeps no texts, so none can be shown. {HOW_TO_KEEP}; or find them by their ids "
    "in your own records, and send labels to /feedback or with `sentiment labels import`."
)


class ReviewItem(Result):
    """A prediction to label; `weight` is 1 / `probability`."""

    prediction_id: UUID
    created_at: datetime
    endpoint: Endpoint
    model_version: Version
    model_revision: str
    sentiment: Sentiment = Field(description="what the model says; a labeller had better not know")
    confidence: float
    classes: list[Sentiment] = Field(description="that the model has, by name")
    text: str | None = Field(description="null if it is not kept, or not shown to this API key")
    reasons: list[Reason] = Field(
        description="disagreement: the other version says otherwise; low_confidence: the best two "
        "scores are less than 0.2 apart; unusual: texts of this length are more than twice as "
        "frequent as in the week before; random: it belongs to the uniformly random part"
    )
    probability: float = Field(gt=0, le=1, description="with which the queue chose it")
    weight: float = Field(description="predictions that its label stands for")


class ReviewQueue(Window):
    """Predictions without a label, in random order (docs/statistics.md)."""

    items: list[ReviewItem]
    waiting: int = Field(
        description="predictions that wait for a label, also those not listed; a week after they "
        "were chosen they no longer do"
    )
    labelled: int = Field(description="predictions of the queue that have a label")
    texts: TextState = Field(description="whether texts are shown")
    note: str | None = Field(description="why texts are not shown, and what to do; else null")


_RANGE = (
    review_items.c.prediction_id >= bindparam("low"),
    review_items.c.prediction_id < bindparam("high"),
)
_IS_LABELLED = exists().where(feedback.c.prediction_id == review_items.c.prediction_id)
_OF_VERSION = model_versions.c.version == func.coalesce(
    bindparam("version"), model_versions.c.version
)
_BOUNDS = (
    predictions.c.id >= bindparam("low"),
    predictions.c.id < bindparam("high"),
    predictions.c.created_at >= bindparam("since"),
    predictions.c.created_at < bindparam("until"),
)
_WAITS = and_(~_IS_LABELLED, review_draws.c.drawn_at > bindparam("drawn_after"))
_JOINED = (
    review_items.join(predictions, predictions.c.id == review_items.c.prediction_id)
    .join(model_versions, model_versions.c.id == predictions.c.model_version_id)
    .join(review_draws, review_draws.c.id == review_items.c.draw_id)
)
_COUNTS = (
    select(
        model_versions.c.version,
        func.count().filter(_WAITS).label("waiting"),
        func.count().filter(_IS_LABELLED).label("labelled"),
    )
    .select_from(_JOINED)
    .where(*_RANGE, *_BOUNDS, _OF_VERSION)
    .group_by(model_versions.c.version)
)
_WAITING = (
    select(
        review_items.c.prediction_id,
        predictions.c.created_at,
        predictions.c.endpoint,
        model_versions.c.version.label("model_version"),
        model_versions.c.revision.label("model_revision"),
        predictions.c.sentiment,
        predictions.c.confidence,
        *(predictions.c[f"score_{name}"] for name in SENTIMENTS),
        predictions.c.text,
        review_items.c.reasons,
        review_items.c.probability,
        (literal_column("1.0") / review_items.c.probability).label("weight"),
    )
    .select_from(_JOINED)
    .where(*_RANGE, *_BOUNDS, _OF_VERSION, _WAITS)
    # Random, so that labels of a part of the queue stand for all of it.
    .order_by(review_items.c.position)
    .limit(bindparam("limit", type_=Integer))
)


async def review_queue(
    reader: Reader,
    draws: ReviewDraws,
    scope: Scope,
    limit: int,
    now: datetime,
    *,
    shows_texts: bool = True,
) -> ReviewQueue:
    """At most `limit` predictions to label; if few are left in the scope, more are drawn.

    `limit` 0 only counts, and draws nothing.

    Raises:
        DatabaseUnavailable: PostgreSQL is away.
    """
    since, until = scope.span.since, scope.span.until
    low, high = id_range(since, until)
    parameters = {
        "since": since, "until": until, "low": low, "high": high, "version": scope.version,
        "drawn_after": now - draws.waits,
    }  # fmt: skip
    counts = await _counts(reader, parameters)
    if limit:
        wanted = VERSIONS if scope.version is None else (scope.version,)
        drawn = 0
        for version in wanted:
            waiting = counts[version].waiting if version in counts else 0
            if waiting < REFILL_SHARE * draws.size:
                drawn += await draws.draw(version, scope.span, now)
        if drawn:
            counts = await _counts(reader, parameters)
    rows = await reader.select(Query(_WAITING, {**parameters, "limit": limit})) if limit else ()
    is_kept = any(row.text is not None for row in rows)
    texts: TextState = "not_kept"
    if is_kept or not rows:
        texts = "shown" if shows_texts else "needs_scope_feedback"
    return ReviewQueue(
        **scope.window,
        items=[_item(row, shows_text=shows_texts) for row in rows],
        waiting=sum(row.waiting for row in counts.values()),
        labelled=sum(row.labelled for row in counts.values()),
        texts=texts,
        note={"shown": None, "not_kept": NOT_KEPT, "needs_scope_feedback": NEEDS_FEEDBACK}[texts],
    )


async def _counts(reader: Reader, parameters: dict[str, object]) -> dict[Version, AnyRow]:
    rows = await reader.select(Query(_COUNTS, parameters))
    return {row.version: row for row in rows}


def _item(row: AnyRow, *, shows_text: bool) -> ReviewItem:
    fields = row._asdict()
    classes = sorted(name for name in SENTIMENTS if fields.pop(f"score_{name}") is not None)
    return ReviewItem(**{**fields, "classes": classes, "text": row.text if shows_text else None})
