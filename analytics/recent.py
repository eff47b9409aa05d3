"""The newest predictions, page by page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select, true

from analytics.reader import AnyRow, AnySelect, Reader
from analytics.scope import Scope
from analytics.subqueries import in_range
from analytics.tables import model_versions, predictions

# Without the text, which is never shown.
_COLUMNS = (
    "id", "created_at", "endpoint", "sentiment", "confidence", "latency_ms", "cache_hit",
    "truncated", "token_count",
)  # fmt: skip


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
    rows = await reader.select(_newest(scope, limit + 1, before))
    page = rows[:limit]
    return RecentPredictions(page, page[-1].id if len(rows) > limit else None)


def _newest(scope: Scope, limit: int, before: UUID | None) -> AnySelect:
    of_model = (
        select(*(predictions.c[name] for name in _COLUMNS))
        .where(
            predictions.c.model_version_id == model_versions.c.id,
            *in_range(predictions, scope.span),
        )
        .order_by(predictions.c.id.desc())
        .limit(limit)
    )
    if before is not None:
        of_model = of_model.where(predictions.c.id < before)
    # By model version, because each has an index: a version that answers rarely is found as fast.
    newest = of_model.correlate(model_versions).lateral("newest")
    statement = (
        select(
            *newest.c,
            model_versions.c.version.label("model_version"),
            model_versions.c.revision.label("model_revision"),
        )
        .join_from(model_versions, newest, true())
        .order_by(newest.c.id.desc())
        .limit(limit)
    )
    if scope.version is not None:
        statement = statement.where(model_versions.c.version == scope.version)
    return statement
