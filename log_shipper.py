"""The process that brings the spooled prediction log to PostgreSQL: `python -m log_shipper`.

An API process starts it and restarts it. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from analytics.database import create_engine
from analytics.log.shipper import Shipper
from analytics.log.writer import LogWriter
from settings import Settings, get_settings

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
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s [%(levelname)s] [log_shipper] %(message)s"
    )
    asyncio.run(_ship(settings))


async def _ship(settings: Settings) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _on_end_of_input, stopping)
    engine = create_engine(
        settings.sqlalchemy_url(), pool_size=1, timeout_seconds=DATABASE_TIMEOUT_SECONDS
    )
    try:
        shipper = Shipper(
            settings.spool_folder(), LogWriter(engine), poll_seconds=settings.log_flush_seconds
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
        await engine.dispose()


def _on_end_of_input(stopping: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4_096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stopping.set()


if __name__ == "__main__":
    main()
