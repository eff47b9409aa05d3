"""Whether a private database has the newest schema, asked without Alembic and SQLAlchemy.

Most starts find that it has. Alembic, and the part of SQLAlchemy that connects, take half a second
and 20 MiB, which would stay in the process manager.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

TIMEOUT_SECONDS = 5.0


def newest_revision() -> str:
    """The revision that the name of the last migration begins with."""
    names = (Path(__file__).parent / "versions").glob("[0-9]*_*.py")
    return max(name.stem.partition("_")[0] for name in names)


def is_newest(url: str) -> bool:
    """Whether the schema at the URL of a private database is this release's.

    Also False if that cannot be found out.
    """
    import asyncpg

    async def revision() -> object:
        connection = await asyncpg.connect(
            url.replace("+asyncpg", "", 1),
            timeout=TIMEOUT_SECONDS,
            command_timeout=TIMEOUT_SECONDS,
        )
        try:
            return await connection.fetchval("SELECT version_num FROM alembic_version")
        finally:
            await connection.close(timeout=TIMEOUT_SECONDS)

    try:
        return asyncio.run(revision()) == newest_revision()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
