"""Open-loop HTTP load: requests come at their own rate, whether or not earlier ones are answered.

That is how the public comes. A latency is counted from when the request was due, so that what
keeps the generator from sending counts against the service, not for it.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from loadtest.client import Client, http_message, local_address
from loadtest.traffic import Request

MAX_CONNECTIONS = 4_000
MAX_SECONDS = 120.0
MAX_REQUESTS = 200_000
MAX_RATE = 20_000
# It looks so often for what is due: once for several requests at a high rate, at a low one once
# for each. What that makes late counts as latency.
TICK_SECONDS = 0.001
ANSWER_SECONDS = 35.0


class Planned(NamedTuple):
    """A request, made before anything is sent: that would take the cores of what is measured."""

    after_seconds: float
    request: Request
    message: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a request; without a right reply `status` is 0 and `failure` the reason."""

    due: float  # of time.perf_counter
    latency_seconds: float
    status: int
    failure: str = ""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class OpenLoop:
    """Sends to one service; keeps its connections from one burst to the next."""

    def __init__(self, url: str) -> None:
        """Raises ValueError: `url` is not on this machine."""
        self._address = local_address(url)
        self._idle: list[Client] = []
        self._busy: set[Client] = set()
        self._chance = random.Random(0)

    def plan(self, requests: Iterator[Request], *, rate: float, seconds: float) -> list[Planned]:
        """What to send at `rate` a second on average, as a Poisson process.

        Raises:
            ValueError: that is past the bounds of this module.
        """
        if not (
            0 < rate <= MAX_RATE and 0 < seconds <= MAX_SECONDS and rate * seconds <= MAX_REQUESTS
        ):
            raise ValueError(
                f"at most {MAX_RATE} requests a second, {MAX_SECONDS:.0f} s, {MAX_REQUESTS} in all"
            )
        planned = []
        after_seconds = self._chance.expovariate(rate)
        while after_seconds < seconds:
            request = next(requests)
            message = http_message(self._address[0], request)
            planned.append(Planned(after_seconds, request, message))
            after_seconds += self._chance.expovariate(rate)
        return planned

    async def send(self, planned: Sequence[Planned]) -> list[Outcome]:
        """Send each request when it is due; return when all are answered."""
        outcomes: list[Outcome] = []
        with _without_pauses():
            start = time.perf_counter()
            for request in planned:
                due = start + request.after_seconds
                if (early := due - time.perf_counter()) > 0:
                    await asyncio.sleep(max(early, TICK_SECONDS))
                self._send(request, due, outcomes)
        deadline = time.perf_counter() + ANSWER_SECONDS
        while self._busy:
            await asyncio.sleep(0.01)
            if time.perf_counter() > deadline:
                for client in list(self._busy):
                    client.fail("timeout")
        return outcomes

    def close(self) -> None:
        for client in self._idle:
            client.close()

    def _send(self, planned: Planned, due: float, outcomes: list[Outcome]) -> None:
        if not self._idle and len(self._busy) >= MAX_CONNECTIONS:
            outcomes.append(Outcome(due, 0.0, 0, "no connection left"))
            return
        client = self._idle.pop() if self._idle else Client(*self._address)
        self._busy.add(client)

        def done(_seconds: float, status: int, failure: str) -> None:
            outcomes.append(Outcome(due, time.perf_counter() - due, status, failure))
            self._busy.discard(client)
            self._idle.append(client)

        client.send(planned.message, planned.request, done)


@contextmanager
def _without_pauses() -> Iterator[None]:
    """Collects no garbage: over ten thousands of outcomes that took 120 ms, in which none moved."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
