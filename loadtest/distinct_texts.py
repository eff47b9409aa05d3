"""Closed-loop load of distinct texts: each client sends again when it has its answer."""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import urlsplit

import aiohttp
import typer

MAX_CLIENTS = 512
MAX_SECONDS = 300.0
_WORDS = (  # noqa: SIM905  a list of words reads worse
    "the a this film plot cast book phone charger was is felt seemed truly hardly never very quite "
    "brilliant dull warm broken charming slow sharp tedious lovely awful funny flat great poor and "
    "but because although with without until after for me us everyone nobody again twice at last"
).split()


@dataclass
class LoadReport:
    """What came back. `failures` are counted by status, or by the error's name."""

    seconds: float
    latencies_seconds: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def requests_per_second(self) -> float:
        return len(self.latencies_seconds) / self.seconds

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.latencies_seconds)
        return 1_000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def __str__(self) -> str:
        return (
            f"{len(self.latencies_seconds)} answers, {sum(self.failures.values())} failures "
            f"{self.failures or ''} in {self.seconds:.0f} s: {self.requests_per_second:.0f}/s, "
            f"p50 {self.percentile_ms(0.5):.0f} ms, p95 {self.percentile_ms(0.95):.0f} ms, "
            f"p99 {self.percentile_ms(0.99):.0f} ms"
        )


async def run_load(url: str, *, clients: int, seconds: float, seed: int = 0) -> LoadReport:
    """Send POST /predict from `clients` clients for `seconds`; every text is new.

    Raises:
        ValueError: `url` is not on this machine, or the load is past the bounds of this module.
    """
    if urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1"):
        raise ValueError("load is sent to this machine only")
    if not (0 < clients <= MAX_CLIENTS and 0 < seconds <= MAX_SECONDS):
        raise ValueError(f"at most {MAX_CLIENTS} clients and {MAX_SECONDS:.0f} s")
    report = LoadReport(seconds)
    numbers = itertools.count()
    end = time.monotonic() + seconds

    async def one_client(session: aiohttp.ClientSession) -> None:
        while time.monotonic() < end:
            number = next(numbers)
            started = time.perf_counter()
            try:
                # Many addresses, each within the rate limit: the limit stays on.
                async with session.post(
                    f"{url}/predict",
                    json={"text": distinct_text(seed, number)},
                    headers={"X-Forwarded-For": _address(number)},
                ) as response:
                    reply = await response.json(content_type=None)
                    outcome = "" if "sentiment" in reply else str(response.status)
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                outcome = type(error).__name__
            if outcome:
                report.failures[outcome] = report.failures.get(outcome, 0) + 1
            else:
                report.latencies_seconds.append(time.perf_counter() - started)

    connector = aiohttp.TCPConnector(limit=clients)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await asyncio.gather(*(one_client(session) for _ in range(clients)))
    return report


def distinct_text(seed: int, number: int) -> str:
    """The text of this number: 5 to 40 words, the number among them, so no two are equal."""
    words = random.Random(f"{seed}/{number}")
    chosen = words.choices(_WORDS, k=words.randint(4, 39))
    return " ".join([*chosen, f"{seed}n{number}"])


def _address(number: int) -> str:
    client = number // 50
    return f"10.{client >> 16 & 255}.{client >> 8 & 255}.{client & 255}"


def main(
    url: Annotated[str, typer.Option()] = "http://127.0.0.1:3000",
    clients: Annotated[int, typer.Option()] = 64,
    seconds: Annotated[float, typer.Option()] = 60.0,
) -> None:
    """Exit 1 if any request fails."""
    seed = time.time_ns()
    report = asyncio.run(run_load(url, clients=clients, seconds=seconds, seed=seed))
    print(report)
    sys.exit(1 if report.failures else 0)


if __name__ == "__main__":
    typer.run(main)
