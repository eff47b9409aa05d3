"""The shipper's process, `python -m analytics.log`: ships the spool, feeds sinks, watches drift.

An API process starts it (`ShipperSupervisor`). It ends when its standard input closes. It watches
drift too, because importing SciPy takes half a second, for which no request should wait, and keys
the hashes of earlier releases.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import sys
from contextlib import suppress
from functools import partial

from core.gc import paused_gc
from core.signals import end_with_parent

if __name__ == "__main__":
    end_with_parent()  # before the imports, in which somebody may stop it

with paused_gc():
    from analytics.drift_watch import watch_drift
    from analytics.hash_conversion import HashConversion
    from analytics.log.destination import keep_noted
    from analytics.log.shipper import Shipper
    from analytics.log.shipper_supervisor import BEAT_SECONDS
    from analytics.log.sinks.configured import Sinks
    from analytics.log.writer import LogWriter
    from analytics.reader import Reader
    from core.background import run_in_background
    from core.logging import configure_logs
    from core.postgres import create_engine
    from core.settings import Settings, get_settings
    from core.tracing import start_tracing, stop_tracing

logger = logging.getLogger("bentoml.sentiment.log")

# A batch of a backlog takes a second or two, more on a busy machine, and no client waits for it.
DATABASE_TIMEOUT_SECONDS = 60.0
# How long the process goes on shipping, and then feeding sinks, when its parent has ended; the next
# one does the rest.
DRAIN_SECONDS = 10.0
# Lower priority than the processes that answer requests.
NICENESS = 5


def main() -> None:
    end_with_parent()
    if select.select([sys.stdin], [], [], 0)[0]:
        return  # the parent has ended already: it writes nothing
    # The whole process group receives these; the parent decides when this process ends.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    settings = get_settings()
    configure_logs(settings.log_level, settings.log_format, lambda: "log_shipper")
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    stopping = asyncio.Event()
    os.set_blocking(sys.stdin.fileno(), False)
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _on_input, stopping)
    # Two pools, so that the writer never waits for the others.
    writing, reading = (
        create_engine(
            settings.sqlalchemy_url(), pool_size=1, timeout_seconds=DATABASE_TIMEOUT_SECONDS
        )
        for _ in range(2)
    )
    others = (
        run_in_background("DriftWatch", partial(watch_drift, Reader(reading))),
        run_in_background("HashConversion", HashConversion(reading).run),
        run_in_background("Heartbeat", _beat),
        run_in_background(
            "SpoolDestination", partial(keep_noted, reading, settings.spool_folder())
        ),
    )
    if settings.is_traced:
        start_tracing(f"{settings.otel_service_name}-log-shipper", settings.traces_endpoint)
    sinks = Sinks(settings, settings.spool_folder(), reading)
    sinks.start()
    shipper = Shipper(
        settings.spool_folder(),
        LogWriter(
            writing,
            settings.hash_keys(),
            sinks.outbox,
            text_days=settings.text_retention_days,
        ),
        poll_seconds=settings.log_flush_seconds,
    )
    try:
        running = run_in_background("Shipper", partial(shipper.run, stopping), until_done=True)
        await asyncio.wait(
            (running, asyncio.create_task(stopping.wait())), return_when="FIRST_COMPLETED"
        )
        async with asyncio.timeout(DRAIN_SECONDS):
            await running
    except TimeoutError:
        logger.warning("the shipper ends with predictions left in the spool")
    finally:
        await sinks.stop(DRAIN_SECONDS)
        await asyncio.to_thread(stop_tracing)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await reading.dispose()
        await writing.dispose()


async def _beat() -> None:
    """Show the parent that this process goes on, as long as its event loop does."""
    while True:
        with suppress(OSError):  # the parent has ended, is stopped, or gave it no socket
            os.write(sys.stdin.fileno(), b".")
        await asyncio.sleep(BEAT_SECONDS)


def _on_input(stopping: asyncio.Event) -> None:
    """Set `stopping` at the end of standard input."""
    sent = b""
    with suppress(ConnectionResetError):  # the parent was killed
        sent = os.read(sys.stdin.fileno(), 4_096)
    if not sent:
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stopping.set()


if __name__ == "__main__":
    main()
