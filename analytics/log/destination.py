"""Where a spool's predictions go, so that no service with another database writes to it.

The shipper of a spool notes its database in the folder. It is known by what no dump brings along
(the identifier of the cluster, and the number of the database in it): a copy is another database.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from analytics.log.segments import segments
from core.atomic_file import write_atomically
from core.postgres import DATABASE_FAILURES
from core.printable import printable
from core.private_files import read_own
from core.unreadable import UNREADABLE

logger = logging.getLogger("bentoml.sentiment.log")

FILE = "database"
CHECK_SECONDS = 5.0
_ID = text(
    "SELECT system_identifier || '/' || oid FROM pg_control_system(), pg_database "
    "WHERE datname = current_database()"
)


@dataclass(frozen=True, slots=True)
class Destination:
    """A database: what it is known by, and its address without a password."""

    id: str
    address: str


async def destination_of(connection: AsyncConnection) -> Destination | None:
    """The database of a connection; None if the role may not know.

    Raises:
        DATABASE_FAILURES: PostgreSQL is away.
    """
    try:
        id_ = await connection.scalar(_ID)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return None
    return Destination(str(id_), _address(connection.engine.url))


def _address(url: URL) -> str:
    return url.set(drivername="postgresql", password=None).render_as_string()


def noted(folder: Path) -> Destination | None:
    """The database that the spool's shipper noted last; None if none can be read."""
    with suppress(OSError, *UNREADABLE):
        return msgspec.json.decode(read_own(folder / FILE), type=Destination)
    return None


async def keep_noted(engine: AsyncEngine, folder: Path) -> None:
    """Note the engine's database in the spool's folder for ever, also once it is another."""
    while True:
        await note_of(engine, folder)
        await asyncio.sleep(CHECK_SECONDS)


async def note_of(engine: AsyncEngine, folder: Path) -> None:
    """Note the engine's database in the spool's folder, unless it is away or may not be known.

    Raises:
        OSError: the folder cannot be written to.
    """
    with suppress(*DATABASE_FAILURES):
        async with engine.connect() as connection:
            destination = await destination_of(connection)
        if destination is not None:
            await asyncio.to_thread(note, folder, destination)


def note(folder: Path, destination: Destination) -> None:
    """Note a database, unless it is noted already.

    Raises:
        OSError: the folder cannot be written to.
    """
    before = noted(folder)
    if before == destination:
        return
    if before is not None and before.id != destination.id and segments(folder):
        logger.warning(
            "what waits in %s may be of a service that stored in another database, %s; it is "
            "stored in %s",
            folder, printable(before.address), destination.address,
        )  # fmt: skip
    write_atomically(folder / FILE, msgspec.json.encode(destination))
