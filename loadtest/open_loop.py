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
from urllib.parse import urlsplit

from loadtest.client import Connection, is_expected
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
    path: str
    failure: str = ""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class OpenLoop:
    """Sends to one service; keeps its connections from one burst to the next."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        """`headers` go with every request.

        Raises:
            ValueError: `url` is not on this machine.
        """
        parts = urlsplit(url)
        if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise ValueError("load is sent to this machine only")
        self._host, self._port = parts.hostname, parts.port or 80
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self._idle: list[_Caller] = []
        self._busy: set[_Caller] = set()
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
            planned.append(Planned(after_seconds, request, self._message(request)))
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
                for caller in list(self._busy):
                    caller.fail("timeout")
        return outcomes

    def close(self) -> None:
        for caller in self._idle:
            caller.close()

    def _message(self, request: Request) -> bytes:
        head = (
            f"POST {request.path} HTTP/1.1\r\nHost: {self._host}\r\n{self._headers}"
            f"Content-Type: application/json\r\nContent-Length: {len(request.body)}\r\n\r\n"
        )
        return head.encode() + request.body

    def _send(self, planned: Planned, due: float, outcomes: list[Outcome]) -> None:
        if not self._idle and len(self._busy) >= MAX_CONNECTIONS:
            outcomes.append(Outcome(due, 0.0, 0, planned.request.path, "no connection left"))
            return
        caller = self._idle.pop() if self._idle else _Caller(self)
        self._busy.add(caller)
        caller.send(planned.request, planned.message, due, outcomes)

    def free(self, caller: _Caller) -> None:
        self._busy.discard(caller)
        self._idle.append(caller)

    async def connect(self, caller: _Caller) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(caller), self._host, self._port
        )
        return connection


@contextmanager
def _without_pauses() -> Iterator[None]:
    """Collects no garbage: over ten thousands of outcomes that took 120 ms, in which none moved."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _Caller:
    """One connection, and the request that is under way on it."""

    def __init__(self, load: OpenLoop) -> None:
        self._load = load
        self._connection: Connection | None = None
        self._request: Request | None = None
        self._due = 0.0
        self._outcomes: list[Outcome] = []
        self._connecting: asyncio.Task[None] | None = None

    def send(self, request: Request, message: bytes, due: float, outcomes: list[Outcome]) -> None:
        self._request, self._due, self._outcomes = request, due, outcomes
        if self._connection is not None:
            self._connection.transport.write(message)
        else:
            self._connecting = asyncio.create_task(self._connect_and_send(message))

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.transport.abort()

    def answered(self, status: int, body: bytes, *, keep_alive: bool) -> None:
        if not keep_alive:
            self.close()
        if self._request is not None:
            is_right = status >= 300 or is_expected(body, self._request, parsed=False)
            if is_right:
                self._done(status)
            else:
                self._done(0, "body")

    def fail(self, failure: str) -> None:
        self.close()
        if self._connecting is not None:
            self._connecting.cancel()
        self._done(0, failure)

    def lost(self, connection: Connection) -> None:
        if connection is self._connection:
            self.fail("disconnected")

    def _done(self, status: int, failure: str = "") -> None:
        if self._request is None:
            return
        latency_seconds = time.perf_counter() - self._due
        self._outcomes.append(
            Outcome(self._due, latency_seconds, status, self._request.path, failure)
        )
        self._request = None
        self._load.free(self)

    async def _connect_and_send(self, message: bytes) -> None:
        try:
            self._connection = await self._load.connect(self)
        except OSError as error:
            self._done(0, type(error).__name__)
        else:
            self._connection.transport.write(message)
