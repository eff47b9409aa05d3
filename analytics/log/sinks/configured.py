"""The sinks that the settings ask for, and their deliveries from one spool."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.log.sinks.cursor import sinks_of
from analytics.log.sinks.delivery import Sink, SinkDelivery
from analytics.log.sinks.outbox import Outbox
from core.background import run_in_background
from core.settings import Settings
from core.types import SinkName

CLEAN_SECONDS = 1.0
WAIT_SECONDS = 0.1


def make_sinks(settings: Settings) -> list[Sink]:
    """The sinks of LOG_EVENTS_URL and LOG_PARQUET_URL, those that are set."""
    sinks: list[Sink] = []
    if settings.log_events_url is not None:
        # Imported where they are needed: they take a fifth of a second, and pyarrow may be missing.
        from analytics.log.sinks.events import EventsSink

        token = settings.log_events_token
        sinks.append(
            EventsSink(
                settings.log_events_url.get_secret_value(),
                source=settings.log_events_source,
                mode=settings.log_events_mode,
                token=None if token is None else token.get_secret_value(),
            )
        )
    if settings.log_parquet_url is not None:
        from analytics.log.sinks.parquet import ParquetSink

        url = settings.log_parquet_url
        sinks.append(ParquetSink(url, batch_seconds=settings.log_parquet_seconds))
    return sinks


class Sinks:
    """The outbox of a spool and the deliveries from it; both are missing without sinks."""

    def __init__(
        self,
        settings: Settings,
        spool: Path,
        engine: AsyncEngine,
        *,
        keeps_others: bool = False,
    ) -> None:
        """`engine` is read from, and may be shared.

        With `keeps_others`, predictions wait for the sinks that another process has with the spool.
        """
        sinks = make_sinks(settings)
        self._keeps_others = keeps_others
        self.others = sinks_of(spool) - {sink.name for sink in sinks} if keeps_others else set()
        most = settings.log_sink_max_predictions
        self.outbox: Outbox | None = None
        self._deliveries: list[SinkDelivery] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._cleaning: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()
        if sinks or self.others:
            self.outbox = Outbox(
                spool,
                [sink.name for sink in sinks],
                sync=settings.log_durability == "fsync",
                max_predictions=most,
            )
            self._deliveries = [
                SinkDelivery(sink, self.outbox, engine, max_predictions=most) for sink in sinks
            ]

    def start(self) -> None:
        for delivery in self._deliveries:
            run = partial(delivery.run, self._ending)
            self._tasks.append(run_in_background("SinkDelivery", run, until_done=True))
        if self.outbox is not None and not self._keeps_others:
            self._cleaning = run_in_background("OutboxCleaner", self._clean)

    @property
    def waiting(self) -> dict[SinkName, int]:
        """The predictions that each sink does not have."""
        return {delivery.name: delivery.waiting for delivery in self._deliveries}

    @property
    def delivered(self) -> int:
        return sum(delivery.delivered for delivery in self._deliveries)

    async def stop(self, seconds: float) -> None:
        """Deliver what waits, if the sinks take it at once, for so long at most."""
        self._ending.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        others = (*self._tasks, *([self._cleaning] if self._cleaning else []))
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self.outbox is not None:
            self.outbox.close()

    async def finish(self, seconds: float) -> None:
        """Deliver all that waits; give up once the sinks have taken nothing for so long."""
        for delivery in self._deliveries:
            delivery.at_once = True
        taken, since = self.delivered, time.monotonic()
        while any(self.waiting.values()) and time.monotonic() < since + seconds:
            await asyncio.sleep(WAIT_SECONDS)
            if self.delivered > taken:
                taken, since = self.delivered, time.monotonic()

    async def _clean(self) -> None:
        """Delete files that all sinks have passed, for ever."""
        assert self.outbox is not None  # noqa: S101
        while True:
            needed = [delivery.cursor.needed for delivery in self._deliveries]
            await asyncio.to_thread(self.outbox.forget, needed)
            await asyncio.sleep(CLEAN_SECONDS)
