"""Rollout policies in PostgreSQL: the newest is active, the others are its history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC

from sqlalchemy import Insert, insert, literal, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from core.admin_log import admin_action
from core.errors import PolicyConflict
from core.postgres import reading
from core.request_context import origin
from rollout.record import STORED, PolicyRecord
from rollout.tables import rollout_policies as table

# Of a page of the history: the subjects of 200 policies may have 40 million characters.
MAX_CHARACTERS = 500_000
AT_ONCE = 3
# Any number that no other program uses on this database: the ASCII of "rollout_".
_LEADER_LOCK = text(f"SELECT pg_try_advisory_xact_lock({0x726F6C6C6F75745F})")


def _logged(record: PolicyRecord) -> Insert:
    return admin_action(
        record.created_at,
        author=record.author,
        origin=origin(),
        action=record.action,
        reason=record.reason,
        details={"policy": record.version},
    )


class PolicyStore:
    """Every method raises `DatabaseUnavailable` when PostgreSQL is down or slow."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def newest(self) -> PolicyRecord | None:
        """The active policy; None while the settings are the policy."""
        records = await self.history(1)
        return records[0] if records else None

    async def is_newest(self, record: PolicyRecord) -> bool:
        """Whether a policy, or the settings as version 0, is the active one.

        A database that is another copy than before may have another policy of the same version.
        """
        newest = select(table.c.version, table.c.created_at).order_by(table.c.version.desc())
        async with reading(self._engine, "policy") as connection:
            row = (await connection.execute(newest.limit(1))).one_or_none()
        if row is None:
            return record.version == 0
        return (row.version, row.created_at) == (record.version, record.created_at)

    async def get(self, version: int) -> PolicyRecord | None:
        records = await self.history(1, version + 1)
        return records[0] if records and records[0].version == version else None

    async def history(self, limit: int, before: int | None = None) -> list[PolicyRecord]:
        """The newest `limit` policies, newest first; only those before version `before`.

        Fewer, but several, where their overrides name subjects of many characters.
        """
        records: list[PolicyRecord] = []
        characters = 0
        query = select(table).order_by(table.c.version.desc())
        async with reading(self._engine, "policy") as connection:
            while len(records) < limit and characters < MAX_CHARACTERS:
                asked = min(AT_ONCE, limit - len(records))
                newest = query if before is None else query.where(table.c.version < before)
                rows = (await connection.execute(newest.limit(asked))).mappings().all()
                for row in rows:
                    created_at = row["created_at"].astimezone(UTC)
                    record = STORED.validate_python({**row, "created_at": created_at})
                    records.append(record)
                    before = record.version
                    characters += sum(map(len, record.policy.overrides))
                if len(rows) < asked:
                    break
        return records

    async def append(self, record: PolicyRecord) -> None:
        """Write `record` as the newest policy, and log the action with the client's address.

        Raises:
            PolicyConflict: the newest policy is not the version before `record`.
        """
        row = STORED.dump_python(record, mode="json", by_alias=True)
        row["created_at"] = record.created_at
        values = select(*(literal(row[column.name], column.type) for column in table.columns))
        statement = insert(table).from_select(
            [column.name for column in table.columns],
            values.where(text("coalesce((SELECT max(version) FROM rollout_policies), 0) = :base")),
        )
        async with reading(self._engine, "policy") as connection:
            try:
                async with connection.begin():
                    result = await connection.execute(statement, {"base": record.version - 1})
                    is_next = result.rowcount == 1
                    if is_next:
                        await connection.execute(_logged(record))
            except IntegrityError:
                is_next = False
        if not is_next:
            raise PolicyConflict(
                f"Policy {record.version - 1} is no longer active; "
                "read GET /admin/rollout and decide again"
            )

    @asynccontextmanager
    async def leadership(self) -> AsyncIterator[bool]:
        """Try to become the leader for the block; of all processes only one can be."""
        async with reading(self._engine, "policy") as connection, connection.begin():
            yield bool((await connection.execute(_LEADER_LOCK)).scalar())
