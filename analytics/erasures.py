"""Tombstones of erased texts, subjects and predictions: what a spool still holds is not stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from analytics.hash_keys import HashKeys
from analytics.log.records import ComparisonRecord
from analytics.tables import erasures
from core.types import Prediction


async def bury(
    connection: AsyncConnection,
    hashes: HashKeys,
    at: datetime,
    *,
    digests: Iterable[bytes] = (),
    predictions: Mapping[UUID, datetime] | None = None,
) -> None:
    """Let nothing from before `at` be stored that has one of the digests.

    Nor one of `predictions`, from before the time of its own id.

    A digest is a text's SHA-256, or a subject's key in one test. A tombstone has its HMAC alone.
    """
    # By each key: a host whose setting has not the newest one yet finds it by another.
    rows = [
        {"erased_at": at, "hash_key_id": key, "hash": hashes.hash(digest, key)}
        for digest in digests
        for key in hashes.in_use
    ]
    by_id = [{"erased_at": end, "prediction_id": id_} for id_, end in (predictions or {}).items()]
    for values in (rows, by_id):
        if values:
            await connection.execute(insert(erasures), values)


async def erased_among(
    connection: AsyncConnection,
    hashes: HashKeys,
    predictions: Sequence[Prediction],
    comparisons: Sequence[ComparisonRecord] = (),
) -> set[UUID]:
    """The ids of those predictions that are erased; mostly no tombstone is as young as they are.

    With one of a comparison its other one is erased too: it is of the same text.
    """
    if not predictions:
        return set()
    oldest = min(prediction.created_at for prediction in predictions)
    young = select(erasures).where(erasures.c.erased_at >= oldest)
    rows = (await connection.execute(young)).all()
    if not rows:
        return set()
    by_id = {row.prediction_id: row.erased_at for row in rows if row.prediction_id is not None}
    by_hash = {(row.hash_key_id, row.hash): row.erased_at for row in rows if row.hash is not None}
    keys = {key for key, _ in by_hash}.intersection(hashes.ids)

    def is_erased(prediction: Prediction) -> bool:
        digests = prediction.text_sha256, prediction.hashed_subject
        ends = [
            by_id.get(prediction.id),
            *(
                by_hash.get((key, hashes.hash(digest, key)))
                for key in keys
                for digest in digests
                if digest is not None
            ),
        ]
        return any(end is not None and prediction.created_at <= end for end in ends)

    erased = {prediction.id for prediction in predictions if is_erased(prediction)}
    pairs = [{pair.v1_prediction_id, pair.v2_prediction_id} for pair in comparisons]
    return erased.union(*(pair for pair in pairs if not pair.isdisjoint(erased)))


async def forget_tombstones(connection: AsyncConnection, before: datetime) -> None:
    """Delete the tombstones from before a time: a prediction that old is dropped with its day."""
    await connection.execute(delete(erasures).where(erasures.c.erased_at < before))
