"""Checks that no service with another database uses the spool of a start."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from core.printable import printable

if TYPE_CHECKING:
    from sqlalchemy import URL

TIMEOUT_SECONDS = 5.0


def spool_problem(folder: Path, url: URL) -> str | None:
    """Describe which running service stores the spool's predictions elsewhere; else None.

    Services with one database may share a spool. While PostgreSQL is away, nothing is known.
    """
    # Imported here: the manager of the processes needs them for a moment only.
    from analytics.log.destination import noted
    from analytics.log.shipper_supervisor import is_shipped

    if not is_shipped(folder) or (theirs := noted(folder)) is None:
        return None
    ours = asyncio.run(_id_of(url))
    if ours is None or ours == theirs.id:
        return None
    return (
        f"DATA_FOLDER: another service uses {folder.parent} and stores in another database, "
        f"{printable(theirs.address)}, where the predictions of this one would go too; stop it, "
        "or set DATA_FOLDER"
    )


async def _id_of(url: URL) -> str | None:
    from analytics.log.destination import destination_of
    from core.postgres import DATABASE_FAILURES, opened_engine

    try:
        async with (
            opened_engine(url, timeout_seconds=TIMEOUT_SECONDS) as engine,
            asyncio.timeout(2 * TIMEOUT_SECONDS),
            engine.connect() as connection,
        ):
            destination = await destination_of(connection)
    except DATABASE_FAILURES:
        return None
    return None if destination is None else destination.id
