"""Clients that go on while something breaks, and what became of each of their requests."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import httpx

from tests.serving import ServedBento

CLIENTS = 12
READY_IN_A_ROW = 20

# Of the whole run: a text that was sent before would be answered from the cache.
_numbers = itertools.count()


class Pace(NamedTuple):
    """How much is sent: a client's pause after an answer, and the share of what a test asks for."""

    pause_seconds: float = 0.0
    share: float = 1.0


FULL = Pace()
# Where what breaks matters, and not how much is sent: clients that never rest would take both
# cores from the tests beside.
SPARING = Pace(pause_seconds=0.3, share=0.25)

# What a process says whose loop stays late, as those of a machine that stood still do for a second.
SHED = "The service has too much to do; try again"
STANDSTILL_SECONDS = 0.5


@dataclass
class Traffic:
    """Of /predict and /predict/batch, with texts that nobody sent before."""

    pace: Pace = FULL
    acknowledged: list[str] = field(default_factory=list)  # ids of predictions
    statuses: Counter[int] = field(default_factory=Counter)
    refusals: list[str] = field(default_factory=list)  # why, of what was not answered 200
    _shed: list[str] = field(default_factory=list)
    _stood_still: bool = False
    broken: int = 0  # no reply: the connection ended
    readiness: Counter[int] = field(default_factory=Counter)  # what /readyz said meanwhile
    slowest_seconds: float = 0.0
    stopping: bool = False

    def figures(self) -> str:
        return (
            f"{self.statuses[200]:,} answered, {len(self.refusals)} refused, {self.broken} broken "
            f"off, slowest {self.slowest_seconds:.2f} s"
        )

    async def _keep_sending(self, client: httpx.AsyncClient) -> None:
        while not self.stopping:
            number = next(_numbers)
            started = time.perf_counter()
            try:
                if number % 5:
                    body: object = {"text": f"Number {number} of the films that I saw."}
                    reply = await client.post("/predict", json=body)
                else:
                    body = {"texts": [f"Part {part} of film {number}." for part in range(4)]}
                    reply = await client.post("/predict/batch", json=body)
            except httpx.TransportError:
                self.broken += 1
                await asyncio.sleep(0.05)
                continue
            self.slowest_seconds = max(self.slowest_seconds, time.perf_counter() - started)
            self.statuses[reply.status_code] += 1
            if reply.status_code == 200:
                sent = reply.json()
                self.acknowledged += [each["id"] for each in sent.get("predictions", [sent])]
                await asyncio.sleep(self.pace.pause_seconds)
            else:
                assert int(reply.headers["retry-after"]) >= 1
                detail = reply.json()["detail"]
                (self._shed if detail == SHED else self.refusals).append(detail)
                await asyncio.sleep(0.05)

    async def _keep_asking_whether_ready(self, client: httpx.AsyncClient) -> None:
        while not self.stopping:
            with contextlib.suppress(httpx.TransportError):
                self.readiness[(await client.get("/readyz")).status_code] += 1
            started = time.perf_counter()
            await asyncio.sleep(0.05)
            self._stood_still |= time.perf_counter() - started > STANDSTILL_SECONDS

    def end(self) -> None:
        """Count what was shed as refused, unless the machine stood still, here too."""
        if not self._stood_still:
            self.refusals += self._shed

    async def answers(self, count: int, seconds: float = 60.0) -> None:
        """Wait until `count` more, or the pace's share of it, were answered 200."""
        target = self.statuses[200] + math.ceil(count * self.pace.share)
        async with asyncio.timeout(seconds):
            while True:
                if self.statuses[200] >= target:
                    return
                await asyncio.sleep(0.01)


@asynccontextmanager
async def traffic(bento: ServedBento, pace: Pace = FULL) -> AsyncIterator[Traffic]:
    """Traffic for as long as the block; at its end every request has ended, one way or other."""
    sent = Traffic(pace)
    async with bento.async_client() as client:
        await _all_workers_are_ready(client)
        clients = [asyncio.create_task(sent._keep_sending(client)) for _ in range(CLIENTS)]
        clients.append(asyncio.create_task(sent._keep_asking_whether_ready(client)))
        try:
            await sent.answers(50)
            yield sent
        finally:
            sent.stopping = True
            await asyncio.gather(*clients)
            sent.end()
            print(sent.figures())  # noqa: T201  `make faults` shows it


async def _all_workers_are_ready(client: httpx.AsyncClient) -> None:
    """Whichever answers: what broke before may still be coming up."""
    in_a_row = 0
    async with asyncio.timeout(60):
        while in_a_row < READY_IN_A_ROW:
            # A connection of its own each time, so that it may be any worker's.
            ready = (await client.get("/readyz", headers={"Connection": "close"})).is_success
            in_a_row = in_a_row + 1 if ready else 0
            await asyncio.sleep(0.02)
