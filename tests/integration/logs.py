"""A prediction log with its spool, and the shipping of what is in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.log.prediction_log import PredictionLog
from analytics.log.shipper import Shipper
from analytics.log.spool import Spool
from analytics.log.writer import LogWriter


@dataclass(frozen=True)
class SpooledLog:
    """What an API process has of the log; what it recorded is shipped when a test says so."""

    log: PredictionLog
    folder: Path

    async def ship(self, engine: AsyncEngine) -> None:
        """Bring to PostgreSQL all that is there."""
        stopping = asyncio.Event()
        stopping.set()
        await self.shipper(engine).run(stopping)

    def shipper(self, engine: AsyncEngine) -> Shipper:
        return Shipper(self.folder, LogWriter(engine), poll_seconds=0.01)


@asynccontextmanager
async def spooled_log(folder: Path) -> AsyncIterator[SpooledLog]:
    spool = Spool(folder, max_bytes=1 << 30, durability="page_cache", when_full="refuse")
    spool.start()
    log = PredictionLog(spool, text_storage="hash", when_full="refuse")
    yield SpooledLog(log, folder)
    await log.stop()
    await spool.close()
