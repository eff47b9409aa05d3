"""Closed-loop HTTP load in a process of its own; the last line it prints is its report, as JSON.

Each client has one connection and sends again when it has its answer and has thought. What comes
back while the service warms up is not counted.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
import resource
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import urlsplit

import typer
import uvloop

from loadtest.client import Client
from loadtest.report import LoadReport
from loadtest.traffic import USUAL_WORDS, Kind, Request, Traffic, make_traffic

MAX_CLIENTS = 512
MAX_SECONDS = 300.0
MAX_WARM_UP_SECONDS = 60.0
ANSWER_SECONDS = 60.0
_REQUESTS_PER_ADDRESS = 50


@dataclass
class _Load:
    """One run: what clients send, and where their answers are counted."""

    host: str
    port: int
    requests: Iterator[Request]
    primer_requests: int
    clients: int
    think: tuple[float, float]
    many_addresses: bool
    report: LoadReport = field(default_factory=LoadReport)
    stopping: bool = False
    counts_from: float = math.inf
    counts_until: float = math.inf
    answers: int = 0
    warm: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._chance = random.Random(0)
        self._numbers = itertools.count()
        self._heads: dict[str, bytes] = {}
        self._running: set[Client] = set()
        self._clients_with_answer: set[Client] = set()

    def start(self) -> None:
        self._running = {Client(self) for _ in range(self.clients)}
        for client in list(self._running):
            client.start()

    def stop(self) -> None:
        self.stopping = True
        for client in list(self._running):
            client.stop_if_idle()

    def give_up_what_takes_longer_than(self, seconds: float) -> None:
        latest = time.perf_counter() - seconds
        for client in list(self._running):
            if client.sent_at is not None and client.sent_at < latest:
                client.fail("timeout")

    def next_request(self) -> tuple[bytes, Request]:
        request = next(self.requests)
        length = b"%d\r\n\r\n" % len(request.body)
        return self._head(request.path) + length + request.body, request

    def _head(self, path: str) -> bytes:
        address = ""
        if self.many_addresses:
            client = next(self._numbers) // _REQUESTS_PER_ADDRESS
            address = (
                f"X-Forwarded-For: 10.{client >> 16 & 255}.{client >> 8 & 255}.{client & 255}\r\n"
            )
        elif path in self._heads:
            return self._heads[path]
        self._heads[path] = (
            f"POST {path} HTTP/1.1\r\nHost: {self.host}\r\n{address}"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
        return self._heads[path]

    def think_seconds(self) -> float:
        least, most = self.think
        return self._chance.uniform(least, most) if most else 0.0

    def answered(
        self, client: Client, request: Request, latency_seconds: float, failure: str
    ) -> None:
        now, report = time.perf_counter(), self.report
        if failure:
            failures = report.failures if now >= self.counts_from else report.warm_up_failures
            failures[failure] = failures.get(failure, 0) + 1
        elif now >= self.counts_from:
            if now <= self.counts_until:
                report.latencies_seconds.append(latency_seconds)
            since = max(now - latency_seconds, self.counts_from)
            share = (min(now, self.counts_until) - since) / latency_seconds
            report.requests += share
            report.texts += share * request.texts
        if not self.warm.is_set():
            self.answers += 1
            self._clients_with_answer.add(client)
            if (
                self.answers >= self.primer_requests
                and len(self._clients_with_answer) == self.clients
            ):
                self.warm.set()

    def finished(self, client: Client) -> None:
        self._running.discard(client)
        if not self._running:
            self.ended.set()


async def send_load(
    url: str,
    traffic: Traffic,
    *,
    clients: int,
    seconds: float,
    warm_up_seconds: float = 0.0,
    think: tuple[float, float] = (0.0, 0.0),
    many_addresses: bool = False,
    answer_seconds: float = ANSWER_SECONDS,
) -> LoadReport:
    """Send `traffic` from `clients` clients and count for `seconds`.

    With `warm_up_seconds`, counting starts when they have passed, the primer is answered and each
    client has had an answer, or at the latest after a minute. A client thinks `think` seconds, from
    least to most, before each request. `many_addresses` sends X-Forwarded-For, so that each address
    stays within a rate limit. Answers are waited for `answer_seconds`.

    Raises:
        ValueError: `url` is not on this machine, or the load is past the bounds of this module.
    """
    parts = urlsplit(url)
    if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise ValueError("load is sent to this machine only")
    if not (0 < clients <= MAX_CLIENTS and 0 < seconds <= MAX_SECONDS):
        raise ValueError(f"at most {MAX_CLIENTS} clients and {MAX_SECONDS:.0f} s")
    if not 0 <= warm_up_seconds <= MAX_WARM_UP_SECONDS:
        raise ValueError(f"at most {MAX_WARM_UP_SECONDS:.0f} s of warm-up")
    load = _Load(
        host=parts.hostname,
        port=parts.port or 80,
        requests=itertools.chain(traffic.primer, traffic.requests),
        primer_requests=len(traffic.primer),
        clients=clients,
        think=think,
        many_addresses=many_addresses,
    )
    watch = asyncio.create_task(_watch(load, answer_seconds))
    try:
        load.start()
        if warm_up_seconds:
            await asyncio.sleep(warm_up_seconds)
            with suppress(TimeoutError):
                async with asyncio.timeout(MAX_WARM_UP_SECONDS - warm_up_seconds):
                    await load.warm.wait()
        cpu_before, load.counts_from = _cpu_seconds(), time.perf_counter()
        await asyncio.sleep(seconds)
        load.counts_until = time.perf_counter()
        load.report.seconds = load.counts_until - load.counts_from
        load.report.cpu_seconds = _cpu_seconds() - cpu_before
        # What is still under way is waited for: a server must not compute it in another's time.
        load.stop()
        await load.ended.wait()
    finally:
        watch.cancel()
    return load.report


async def _watch(load: _Load, answer_seconds: float) -> None:
    while True:
        await asyncio.sleep(min(1.0, answer_seconds / 4))
        load.give_up_what_takes_longer_than(answer_seconds)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main(
    *,
    url: Annotated[str, typer.Option()] = "http://127.0.0.1:3000",
    kind: Annotated[Kind, typer.Option(help="see loadtest/traffic.py")] = Kind.distinct,
    clients: Annotated[int, typer.Option()] = 64,
    seconds: Annotated[float, typer.Option()] = 10.0,
    warm_up_seconds: Annotated[float, typer.Option()] = 2.0,
    think: Annotated[tuple[float, float], typer.Option(help="seconds, least and most")] = (0, 0),
    seed: Annotated[int, typer.Option()] = 0,
    words: Annotated[int, typer.Option(help="of a text of distinct or repeated")] = USUAL_WORDS,
    batch_texts: Annotated[int, typer.Option(help="0: one text a request")] = 0,
) -> None:
    """Send load to a server on this machine."""
    try:
        traffic = make_traffic(kind, seed=seed, words=words, batch_texts=batch_texts)
        load = send_load(
            url,
            traffic,
            clients=clients,
            seconds=seconds,
            warm_up_seconds=warm_up_seconds,
            think=think,
        )
        report = uvloop.run(load)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    print(json.dumps(report.figures()))


if __name__ == "__main__":
    typer.run(main)
