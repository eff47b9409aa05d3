"""The newest predictions, page by page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Integer, bindparam, select, true

from analytics.reader import AnyRow, Reader
from analytics.scope import Scope
from analytics.shape import Ends, Query
from analytics.subqueries import in_range
from analytics.tables import model_versions, predictions
from core.uuid7 import id_range

# Without the text, which is never shown.
_COLUMNS = (
    "id", "created_at", "endpoint", "sentiment", "confidence", "latency_ms", "cache_hit",
    "truncated", "token_count",
)  # fmt: skip


_LIMIT = bindparam("limit", type_=Integer)
# By model version, because each has an index: a version that answers rarely is found as fast.
_of_model = (
    select(*(predictions.c[name] for name in _COLUMNS))
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


class RecentPredictions(NamedTuple):
    """Rows of the log, newest first, with model_version and model_revision."""

    predictions: Sequence[AnyRow]
    next_before: UUID | None


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
    return RecentPredictions(page, page[-1].id if len(rows) > limit else None)
