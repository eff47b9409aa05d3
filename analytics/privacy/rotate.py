"""Makes another key of the log's hashes, for new rows and new A/B tests."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.hash_keys import add_key
from analytics.privacy.erase import Actor
from analytics.rollups import WRITERS_LOCK
from core.admin_log import admin_action


async def rotate_key(engine: AsyncEngine, actor: Actor) -> int:
    """Store a key that PostgreSQL has from now on; returns its id.

    Raises:
        DATABASE_FAILURES: PostgreSQL is away.
    """
    async with engine.begin() as connection:
        await connection.execute(WRITERS_LOCK)
        key = await add_key(connection)
        await connection.execute(
            admin_action(
                datetime.now(UTC),
                author=actor.author,
                origin=actor.origin,
                action="rotate_key",
                reason=actor.reason,
                details={"hash_key_id": key},
            )
        )
    return key
