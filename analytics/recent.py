"""The newest predictions, page by page."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from analytics.reader import Reader
from analytics.sql_fragment import Scope, SqlFragment
from analytics.window import Window, window
from core.types import Endpoint, Sentiment, Version
from core.uuid7 import id_range

_COLUMNS = """id, created_at, endpoint, sentiment, confidence, latency_ms, cache_hit,
    version AS model_version, revision AS model_revision, truncated, token_count"""


class LoggedPrediction(BaseModel):
    model_config = ConfigDict(protected_namespaces=())
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


async def recent(
    reader: Reader, scope: Scope, limit: int, before: UUID | None = None
) -> RecentPredictions:
    """At most `limit` predictions, older than the one whose id is `before`.

    A page is a range of the primary key, so the last one takes no longer than the first.
    """
    rows = await reader.select(_COLUMNS, _newest(scope, limit + 1, before), "ORDER BY id DESC")
    page = [LoggedPrediction.model_validate(row) for row in rows[:limit]]
    return RecentPredictions(
        **window(scope), predictions=page, next_before=page[-1].id if len(rows) > limit else None
    )


def _newest(scope: Scope, limit: int, before: UUID | None) -> SqlFragment:
    low, high = id_range(scope.span.since, scope.span.until)
    parameters: dict[str, Any] = {
        "low": low,
        "high": high if before is None else min(before, high),
        "since": scope.span.since,
        "until": scope.span.until,
        "limit": limit,
    }
    of_version = ""
    if scope.version is not None:
        of_version = "WHERE m.version = :version"
        parameters["version"] = scope.version
    # By model version, for each of them has an index: one that answers rarely is found as fast.
    return SqlFragment(
        f"""(SELECT m.version, m.revision, p.* FROM model_versions AS m CROSS JOIN LATERAL (
            SELECT * FROM predictions WHERE model_version_id = m.id AND id >= :low AND id < :high
            AND created_at >= :since AND created_at < :until ORDER BY id DESC LIMIT :limit
        ) AS p {of_version} ORDER BY p.id DESC LIMIT :limit)""",
        parameters,
    )
