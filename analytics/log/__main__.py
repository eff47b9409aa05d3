"""The process that brings the spooled prediction log to PostgreSQL: `python -m analytics.log`.

An API process starts it and restarts it. It ends when its standard input does. It also watches
drift: SciPy takes half a second to import, which no request is to wait for.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from analytics.drift_watch import DriftWatch
from analytics.log.shipper import Shipper
from analytics.log.writer import LogWriter
from analytics.reader import Reader
from core.logging import configure_logs
from core.postgres import create_engine
from core.settings import Settings, get_settings
from core.tracing import start_tracing, stop_tracing

# A batch of a backlog takes a second or two, several on a busy machine; and nobody waits for it.
DATABASE_TIMEOUT_SECONDS = 60.0
# Without the process that started it; the next one goes on with what is left.
DRAIN_SECONDS = 10.0
# When processes want more than there is, requests go first.
NICENESS = 5


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; its parent decides
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    settings = get_settings()
    configure_logs(settings.log_level, settings.log_format, lambda: "log_shipper")
    asyncio.run(_ship(settings))


async def _ship(settings: Settings) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _on_end_of_input, stopping)
    # One each, so that neither waits for the other's connection.
    writing, reading = (
        create_engine(
            settings.sqlalchemy_url(), pool_size=1, timeout_seconds=DATABASE_TIMEOUT_SECONDS
        )
        for _ in range(2)
    )
    drift_watch = DriftWatch(Reader(reading))
    drift_watch.start()
    if settings.is_traced:
        start_tracing(f"{settings.otel_service_name}-log-shipper")
    try:
        shipper = Shipper(
            settings.spool_folder(), LogWriter(writing), poll_seconds=settings.log_flush_seconds
        )
        shipping = asyncio.create_task(shipper.run(stopping))
        await asyncio.wait(
            (shipping, asyncio.create_task(stopping.wait())), return_when="FIRST_COMPLETED"
        )
        async with asyncio.timeout(DRAIN_SECONDS):
            await shipping
    except TimeoutError:
        logging.getLogger("bentoml.sentiment.log").warning("the spool keeps what is left")
    finally:
        await asyncio.to_thread(stop_tracing)
        await drift_watch.stop()
        await reading.dispose()
        await writing.dispose()


def _on_end_of_input(stopping: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4_096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stopping.set()


if __name__ == "__main__":
    main()
