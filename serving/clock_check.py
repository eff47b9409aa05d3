"""Checks this machine's clock, which dates predictions, against the clocks of its servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import URL

from core.postgres import opened_engine, server_now
from core.redis import connect

# A prediction is filed under its time, and an A/B test compares the times of two machines.
MAX_DIFFERENCE_SECONDS = 10.0
TIMEOUT_SECONDS = 5.0
DAY_SECONDS = 86_400.0


def clock_problem(
    now: float, *, database_url: URL | None = None, redis_url: str | None = None
) -> str | None:
    """Describe by how much the clock is wrong; None if it is right, or nothing else tells the time.

    Raises:
        Exception: a server does not answer.
    """
    # The files of the service cannot be newer than now, give or take a time zone.
    written = Path(__file__).stat().st_mtime
    if now < written - DAY_SECONDS:
        return (
            f"it says {datetime.fromtimestamp(now, UTC):%Y-%m-%d}, which is before the files of "
            "this service were written; set it, for example with NTP"
        )
    others: dict[str, Callable[[], float]] = {}
    if database_url is not None:
        others["PostgreSQL"] = lambda: asyncio.run(_postgres_time(database_url))
    if redis_url is not None:
        others["Redis"] = lambda: asyncio.run(_redis_time(redis_url))
    for server, read in others.items():
        started = time.monotonic()
        difference = now - read() + (time.monotonic() - started) / 2
        if abs(difference) > MAX_DIFFERENCE_SECONDS:
            is_ahead = "ahead of" if difference > 0 else "behind"
            return (
                f"it is {abs(difference):.0f} s {is_ahead} that of {server}; set both, for example "
                "with NTP: predictions are filed under this time"
            )
        now += time.monotonic() - started
    return None


async def _postgres_time(url: URL) -> float:
    async with (
        opened_engine(url, timeout_seconds=TIMEOUT_SECONDS) as engine,
        engine.connect() as connection,
    ):
        return (await server_now(connection)).timestamp()


async def _redis_time(url: str) -> float:
    redis = connect(url, timeout_seconds=TIMEOUT_SECONDS)
    try:
        seconds, microseconds = await redis.time()
        return float(seconds + microseconds / 1e6)
    finally:
        await redis.aclose()
