"""The newest predictions, page by page."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field
from sqlalchemy import Integer, bindparam, select, true

from analytics.reader import Reader
from analytics.scope import Scope, Window
from analytics.shape import Ends, Query
from analytics.subqueries import in_range
from analytics.tables import model_versions, predictions
from core.types import Endpoint, Sentiment, Version
from core.uuid7 import id_range
from stats.results import Result


# Without the text, which is never shown.
class LoggedPrediction(Result):
    id: UUID
    created_at: datetime
    endpoint: Endpoint
    sentiment: Sentiment
    confidence: float
    latency_ms: float
    cache_hit: bool
    model_version: Version
    model_revision: str
    truncated: bool
    token_count: int


class RecentPredictions(Window):
    predictions: list[LoggedPrediction] = Field(description="newest first; texts are never shown")
    next_before: UUID | None = Field(description="`before` of the next page; null on the last one")


_LIMIT = bindparam("limit", type_=Integer)
# By model version, because each has an index: a version that answers rarely is found as fast.
_of_model = (
    select(
        *(predictions.c[name] for name in LoggedPrediction.model_fields if name in predictions.c)
    )
    .where(
        predictions.c.model_version_id == model_versions.c.id,
        *in_range(predictions, Ends(*(bindparam(name) for name in Ends._fields))),
    )
    .order_by(predictions.c.id.desc())
    .limit(_LIMIT)
    .correlate(model_versions)
    .lateral("of_model")
)
_NEWEST = (
    select(
        *_of_model.c,
        model_versions.c.version.label("model_version"),
        model_versions.c.revision.label("model_revision"),
    )
    .join_from(model_versions, _of_model, true())
    .order_by(_of_model.c.id.desc())
    .limit(_LIMIT)
)
_NEWEST_OF_VERSION = _NEWEST.where(model_versions.c.version == bindparam("version"))


async def recent(
    reader: Reader, scope: Scope, limit: int, before: UUID | None = None
) -> RecentPredictions:
    """At most `limit` predictions, older than the prediction whose id is `before`.

    A page is a range of the primary key, so the last page takes no longer than the first.
    """
    since, until = scope.span.since, scope.span.until
    low, high = id_range(since, until)
    if before is not None:
        high = min(before, high)
    parameters: dict[str, Any] = {**Ends(since, until, low, high)._asdict(), "limit": limit + 1}
    statement = _NEWEST
    if scope.version is not None:
        statement, parameters["version"] = _NEWEST_OF_VERSION, scope.version
    rows = await reader.select(Query(statement, parameters))
    page = rows[:limit]
    next_before = page[-1].id if len(rows) > limit else None
    return RecentPredictions(**scope.window, predictions=page, next_before=next_before)
