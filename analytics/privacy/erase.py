"""Erases what the log has of a person; the counts of the rollups stay.

First come the tombstones, so that nothing older is stored from a spool; then the rows are found
and deleted, a thousand at a time. A second run does what one that was killed has left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Table, and_, delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from analytics.erasures import bury
from analytics.hash_keys import HashKeys
from analytics.log.waiting import waiting_entries
from analytics.privacy.selection import Selection, Selector, identify, in_parts, select_data
from analytics.rollups import KEEP_PARTITIONS, WRITERS_LOCK
from analytics.tables import (
    assignments,
    compared_subjects,
    compared_texts,
    comparisons,
    experiments,
    feedback,
    predictions,
    review_items,
)
from core.admin_log import admin_action
from core.postgres import server_now

# Two clocks that are right differ by less.
MOST_AHEAD = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Actor:
    """The person who erases, and the reason, for the log of admin actions."""

    author: str
    origin: str
    reason: str


@dataclass(slots=True)
class Erasure:
    """The numbers of rows that were deleted, or that would be."""

    by: str
    predictions: int = 0
    labels: int = 0
    comparisons: int = 0
    compared_texts: int = 0
    assignments: int = 0
    compared_subjects: int = 0
    tombstones: int = 0
    # The policies that name the subject in `overrides`: they stay.
    policies_with_an_override: list[int] = field(default_factory=list)
    # Keys that are in no setting: rows that were hashed by them were not found.
    unknown_hash_keys: list[int] = field(default_factory=list)


async def find(
    engine: AsyncEngine, hashes: HashKeys, selector: Selector, salts: Iterable[str]
) -> tuple[Selection, Erasure]:
    """The rows that `erase` would delete, and their numbers.

    Raises:
        DATABASE_FAILURES: PostgreSQL is away.
    """
    await hashes.refresh(engine)
    async with engine.connect() as connection:
        found = await select_data(connection, hashes, selector, salts)
        counts = Erasure(
            selector.kind,
            predictions=len(found.predictions),
            comparisons=len(found.comparisons),
            compared_texts=await _count(connection, compared_texts, _is_text(found)),
            assignments=await _count(connection, assignments, _is_subject(found)),
            compared_subjects=await _count(connection, compared_subjects, _is_compared(found)),
            tombstones=len(_buried(selector, found)),
            policies_with_an_override=found.policies,
            unknown_hash_keys=list(hashes.unknown),
        )
        for ids in in_parts(sorted(found.predictions)):
            counts.labels += await _count(connection, feedback, feedback.c.prediction_id.in_(ids))
    return found, counts


async def erase(
    engine: AsyncEngine,
    hashes: HashKeys,
    selector: Selector,
    salts: Iterable[str],
    actor: Actor,
    *,
    now: datetime | None = None,
    spool: Path | None = None,
) -> tuple[Selection, Erasure]:
    """Delete the rows; the log of admin actions keeps the numbers, and nothing of the person.

    `now` is by the clock of this machine. Where that is ahead of PostgreSQL's, PostgreSQL's counts:
    what is answered after the erasure would be taken for what was before it. All that waits in
    `spool` is from before it, also where its clock was set back since.

    Raises:
        DATABASE_FAILURES: PostgreSQL is away; perhaps a part is deleted.
    """
    salts = list(salts)
    await hashes.refresh(engine)
    now = now or datetime.now(UTC)
    async with engine.connect() as connection:
        now = min(now, await server_now(connection) + MOST_AHEAD)
        identified = await identify(connection, selector, salts)
    waiting = _Waiting()
    if spool is not None:
        waiting = await asyncio.to_thread(_find_waiting, spool, now, identified)
    ends = dict.fromkeys(identified.predictions, now) | waiting.ends
    async with engine.begin() as connection:
        await connection.execute(KEEP_PARTITIONS)
        # What is stored before this lock is found below; what comes later sees the tombstones.
        await connection.execute(WRITERS_LOCK)
        await bury(connection, hashes, now, digests=identified.digests, predictions=ends)
        await _log(connection, actor, "erase", {"by": selector.kind})
    found, counts = await find(engine, hashes, selector, salts)
    found.text_hashes |= {*waiting.texts, *hashes.all_hashes(waiting.texts)}
    unknown = filter(None, [found.last_without_cached_hash, waiting.last_unknown])
    found.last_without_cached_hash = max(unknown, default=None)
    counts.tombstones = len(identified.digests) + len(ends)
    counts.predictions = counts.labels = counts.comparisons = 0
    for ids in in_parts(sorted(found.predictions)):
        async with engine.begin() as connection:
            await connection.execute(WRITERS_LOCK)
            columns = comparisons.c
            counts.comparisons += await _delete(
                connection,
                comparisons,
                or_(columns.v1_prediction_id.in_(ids), columns.v2_prediction_id.in_(ids)),
            )
            counts.labels += await _delete(connection, feedback, feedback.c.prediction_id.in_(ids))
            await _delete(connection, review_items, review_items.c.prediction_id.in_(ids))
            counts.predictions += await _delete(connection, predictions, predictions.c.id.in_(ids))
    async with engine.begin() as connection:
        await connection.execute(WRITERS_LOCK)
        counts.compared_texts = await _delete(connection, compared_texts, _is_text(found))
        counts.assignments = await _delete(connection, assignments, _is_subject(found))
        counts.compared_subjects = await _delete(connection, compared_subjects, _is_compared(found))
        await _log(connection, actor, "erased", asdict(counts))
    return found, counts


@dataclass(slots=True)
class _Waiting:
    """What a spool holds of a selection."""

    # The SHA-256 of the texts: answers to them may be cached.
    texts: set[bytes] = field(default_factory=set)
    # The predictions that need a tombstone of their own, and their times.
    ends: dict[UUID, datetime] = field(default_factory=dict)
    # When the last was made of whose text nothing is known.
    last_unknown: datetime | None = None


def _find_waiting(spool: Path, now: datetime, wanted: Selection) -> _Waiting:
    """Find what waits in a spool of the selection; it reads all of the spool.

    What a clock was ahead for has a tombstone of its own: one of the text until then would also
    cover what comes after the erasure.
    """
    found, digests = _Waiting(), set(wanted.digests)
    for entry in waiting_entries(spool):
        mine = [
            prediction
            for prediction in entry.predictions
            if prediction.id in wanted.predictions
            or prediction.text_sha256 in digests
            or prediction.hashed_subject in digests
        ]
        found.texts |= {p.text_sha256 for p in mine if p.text_sha256 is not None}
        unknown = [p.created_at for p in mine if p.text_sha256 is None]
        found.last_unknown = max(filter(None, [found.last_unknown, *unknown]), default=None)
        found.ends |= {p.id: p.created_at for p in mine if p.created_at > now}
    return found


def _buried(selector: Selector, found: Selection) -> Sequence[object]:
    """What gets a tombstone: ids, also of predictions in a spool, or digests."""
    if selector.kind == "prediction":
        return list({UUID(selector.value), *found.predictions})
    return found.digests


def _is_subject(found: Selection) -> ColumnElement[bool]:
    """The subject's assignments, by the index, which begins with the test."""
    columns = assignments.c
    return and_(
        columns.experiment_id.in_(select(experiments.c.id)), columns.subject_key.in_(found.hashes)
    )


def _is_text(found: Selection) -> ColumnElement[bool]:
    """The compared texts: by hashes of texts, ids of comparisons without one, or the subject."""
    columns = compared_texts.c
    keys = [*found.text_hashes, *(id_.bytes for id_ in found.comparisons)]
    return or_(columns.text_key.in_(keys), columns.subject_key.in_(found.hashes))


def _is_compared(found: Selection) -> ColumnElement[bool]:
    return compared_subjects.c.subject_key.in_(found.hashes)


async def _count(connection: AsyncConnection, table: Table, condition: ColumnElement[bool]) -> int:
    statement = select(func.count()).select_from(table).where(condition)
    return int((await connection.execute(statement)).scalar_one())


async def _delete(connection: AsyncConnection, table: Table, condition: ColumnElement[bool]) -> int:
    return (await connection.execute(delete(table).where(condition))).rowcount


async def _log(
    connection: AsyncConnection, actor: Actor, action: str, details: dict[str, Any]
) -> None:
    await connection.execute(
        admin_action(
            datetime.now(UTC),
            author=actor.author,
            origin=actor.origin,
            action=action,
            reason=actor.reason,
            details=details,
        )
    )
