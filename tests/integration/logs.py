"""A prediction log with its spool, and a shipper for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.log.prediction_log import PredictionLog
from analytics.log.records import TextStorage
from analytics.log.seal import SpoolSeal
from analytics.log.shipper import Shipper
from analytics.log.spool import Spool
from analytics.log.writer import LogWriter
from core.postgres import create_engine


@dataclass(frozen=True)
class SpooledLog:
    """The log of an API process; a test says when the spool is shipped."""

    log: PredictionLog
    folder: Path

    async def ship(self, engine: AsyncEngine, hash_keys: Sequence[bytes] = ()) -> None:
        """Ship every segment of the spool."""
        stopping = asyncio.Event()
        stopping.set()
        await self.ship_until(stopping, engine, hash_keys)

    async def ship_until(
        self, stopping: asyncio.Event, engine: AsyncEngine, hash_keys: Sequence[bytes] = ()
    ) -> None:
        """Run a shipper until `stopping` is set and the spool is empty.

        It has connections of its own to the database of `engine`, because it closes them after
        an error.
        """
        own = create_engine(engine.url, pool_size=1, timeout_seconds=5)
        try:
            await Shipper(self.folder, LogWriter(own, hash_keys), poll_seconds=0.01).run(stopping)
        finally:
            await own.dispose()


@asynccontextmanager
async def spooled_log(
    folder: Path, text_storage: TextStorage = "hash"
) -> AsyncIterator[SpooledLog]:
    spool = Spool(folder, max_bytes=1 << 30, durability="page_cache", when_full="refuse")
    spool.start()
    log = PredictionLog(spool, SpoolSeal(folder), text_storage=text_storage, when_full="refuse")
    yield SpooledLog(log, folder)
    await log.stop()
    await spool.close()
