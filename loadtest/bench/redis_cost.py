"""CPU time of Redis for a request of the service: how many requests one core of Redis takes.

The service's own cache and limiter ask a private server, with some requests at once, as an API
process does. Only the CPU time of the server counts, so other work on the machine hardly matters.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from cache.keys import CacheKeys
from cache.prediction_cache import PredictionCache
from core.redis import connect
from core.types import Classification
from serving.embedded.redis import embedded_redis
from web.rate_limiter import RateLimiter

app = typer.Typer()

TTL_SECONDS = 3_600
# No client comes near it.
LIMIT = "1000000/minute"
TIMEOUT_SECONDS = 10.0
REVISION = "0123456789ab"
CLASSIFICATION = Classification(
    revision=REVISION,
    engine="openvino-int8",
    scores={"negative": 0.25, "positive": 0.75},
    token_count=35,
    truncated=False,
)


async def cpu_microseconds(url: str, requests: int, at_once: int) -> dict[str, float]:
    """CPU time of the server at `url` for each request of a kind, with `at_once` under way."""
    redis = connect(url, timeout_seconds=TIMEOUT_SECONDS)
    cache = PredictionCache(redis, ttl_seconds=TTL_SECONDS)
    limiter = RateLimiter(redis, {"predict": LIMIT})
    keys = CacheKeys()
    made = [keys.key("v1", REVISION, f"Text {number}.") for number in range(requests)]

    async def new(number: int) -> None:
        await limiter.check("predict", f"client {number % at_once}")
        await cache.lookup([made[number]])
        cache.store({made[number]: CLASSIFICATION})

    async def cached(number: int) -> None:
        await limiter.check("predict", f"client {number % at_once}")
        if await cache.lookup([made[number]]) == [None]:
            raise RuntimeError("Redis does not hold what was stored")

    costs = {}
    for name, ask in (("new", new), ("cached", cached)):
        before = await _cpu_seconds(redis)
        await _ask_all(ask, range(requests), at_once)
        await cache.stop()
        costs[name] = 1e6 * (await _cpu_seconds(redis) - before) / requests
    await redis.aclose()
    return costs


async def _ask_all(
    ask: Callable[[int], Awaitable[None]], numbers: Iterable[int], at_once: int
) -> None:
    left = iter(numbers)

    async def keep_asking() -> None:
        for number in left:
            await ask(number)

    await asyncio.gather(*(keep_asking() for _ in range(at_once)))


async def _cpu_seconds(redis: Redis) -> float:
    used = await redis.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


@app.command()
def main(
    requests: Annotated[int, typer.Option(min=1, help="of each kind")] = 20_000,
    clients: Annotated[list[int], typer.Option(min=1, help="requests at once")] = [1, 16, 256],  # noqa: B006
) -> None:
    """Print the CPU time of a private Redis for a new and a cached text, and what a core takes."""
    table = Table("requests at once", "new, us", "a core, 1/s", "cached, us", "a core, 1/s")
    with TemporaryDirectory() as folder:
        for number in clients:
            with embedded_redis(Path(folder) / str(number), max_memory="256mb") as url:
                costs = asyncio.run(cpu_microseconds(url, requests, number))
            each = ((f"{cost:.1f}", f"{1e6 / cost:,.0f}") for cost in costs.values())
            table.add_row(str(number), *itertools.chain.from_iterable(each))
    Console().print(table)


if __name__ == "__main__":
    app()
