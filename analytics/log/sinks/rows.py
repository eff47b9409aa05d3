"""Reads what a sink hands on from PostgreSQL: an erased prediction is not there any more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from analytics import sql
from analytics.log.sinks.outbox import Found
from core.postgres import timed
from core.types import Prediction

_STORED = sql.load("stored_by_transaction")
_OUTCOMES = sql.load("transaction_outcomes")
_ROWS = sql.load("handed_on_predictions")
_NUMBER = sql.load("transaction_number")
_PRESENT = text(
    "SELECT id::text FROM predictions WHERE id = ANY(:ids) AND id BETWEEN :first AND :last"
)

Row = dict[str, Any]
# Of one query, each of which has its own time: over a slow link all of a batch would need more.
QUERY_ROWS = 2_000
QUERY_CHARACTERS = 1 << 19


class StillOpen(Exception):
    """A transaction is not over: its server has not noticed that the connection broke."""


async def stored_characters(
    connection: AsyncConnection, predictions: Iterable[Prediction]
) -> tuple[int, dict[UUID, int]]:
    """The number of the connection's transaction, and what it has inserted.

    The size of its text for the id of each prediction.
    """
    characters = {prediction.id: len(prediction.text) for prediction in predictions}
    number = int((await connection.execute(_NUMBER)).scalar_one())
    if not characters:
        return number, {}
    stored = await connection.scalars(_STORED, _ids(sorted(characters)))
    return number, {id_: characters[id_] for id_ in stored}


async def committed_ids(connection: AsyncConnection, records: Sequence[Found]) -> list[UUID]:
    """The ids of those records whose transaction was committed.

    If PostgreSQL does not know any more, as after a restore, only the rows tell.

    Raises:
        StillOpen: one of them is not over.
    """
    numbers = list({found.record.transaction for found in records})
    rows = await connection.execute(_OUTCOMES, {"numbers": numbers})
    outcomes = {row.number: row.outcome for row in rows}
    if "in progress" in outcomes.values():
        raise StillOpen("a transaction is not over")
    return [
        id_
        for found in records
        if outcomes[found.record.transaction] != "aborted"
        for id_ in found.record.ids
    ]


async def read_rows(engine: AsyncEngine, records: Sequence[Found]) -> tuple[list[Row], int]:
    """The predictions of the records that PostgreSQL has, and how many it has no more.

    Raises:
        StillOpen: a transaction is not over.
        DATABASE_FAILURES: PostgreSQL is away.
    """
    async with timed("select"), engine.connect() as connection:
        ids = sorted(set(await committed_ids(connection, records)))
        if not ids:
            return [], 0
        characters = sum(found.record.characters for found in records)
        each = min(QUERY_ROWS, QUERY_CHARACTERS * len(ids) // max(1, characters)) or 1
        rows: list[Row] = []
        for first in range(0, len(ids), each):
            some = await connection.execute(_ROWS, _ids(ids[first : first + each]))
            rows += map(dict, some.mappings())
    return rows, len(ids) - len(rows)


async def gone_among(engine: AsyncEngine, ids: Iterable[str]) -> set[str]:
    """Those of some ids that PostgreSQL has no more. Raises DATABASE_FAILURES: it is away."""
    asked = set(ids)
    ordered, gone = sorted(map(UUID, asked)), set(asked)
    async with timed("select"), engine.connect() as connection:
        for first in range(0, len(ordered), QUERY_ROWS):
            some = _ids(ordered[first : first + QUERY_ROWS])
            gone.difference_update(await connection.scalars(_PRESENT, some))
    return gone


async def count_committed(engine: AsyncEngine, records: Sequence[Found]) -> int:
    """How many predictions of the records were stored. Raises as `read_rows`."""
    async with timed("select"), engine.connect() as connection:
        return len(await committed_ids(connection, records))


def _ids(ids: Sequence[UUID]) -> dict[str, Any]:
    return {"ids": list(ids), "first": ids[0], "last": ids[-1]}
