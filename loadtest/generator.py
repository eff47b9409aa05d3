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
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Annotated

import typer
import uvloop

from loadtest.client import Client, http_message, local_address
from loadtest.report import LoadReport
from loadtest.traffic import USUAL_WORDS, Api, Kind, Request, Traffic, make_traffic

MAX_CLIENTS = 512
MAX_SECONDS = 300.0
MAX_WARM_UP_SECONDS = 60.0
ANSWER_SECONDS = 60.0


class _ClosedLoop:
    """One run: its clients, and the report in which their answers are counted."""

    def __init__(
        self,
        address: tuple[str, int],
        traffic: Traffic,
        clients: int,
        think: tuple[float, float],
    ) -> None:
        self.report = LoadReport()
        self.counts_from = self.counts_until = math.inf
        self.warm, self.ended = asyncio.Event(), asyncio.Event()
        self._host = address[0]
        self._requests = itertools.chain(traffic.primer, traffic.requests)
        self._primer_requests = len(traffic.primer)
        self._think = think
        self._chance = random.Random(0)
        self._running = [Client(*address) for _ in range(clients)]
        self._answers: Counter[Client] | None = Counter()  # None once the service is warm
        self._stopping = False

    def start(self) -> None:
        """Every client thinks first, so that clients that think do not all come at once."""
        for client in self._running:
            self._think_and_send(client)

    def stop(self) -> None:
        """Send nothing more; `ended` is set when the last answer has come."""
        self._stopping = True
        for client in [client for client in self._running if client.sent_at is None]:
            self._finish(client)

    async def give_up_after(self, seconds: float) -> None:
        """Fail requests that take longer, until cancelled."""
        while True:
            await asyncio.sleep(min(1.0, seconds / 4))
            latest = time.perf_counter() - seconds
            for client in list(self._running):
                if client.sent_at is not None and client.sent_at < latest:
                    client.fail("timeout")

    def _think_and_send(self, client: Client) -> None:
        least, most = self._think
        if self._stopping:
            self._finish(client)
        elif most:
            seconds = self._chance.uniform(least, most)
            asyncio.get_running_loop().call_later(seconds, self._send, client)
        else:
            self._send(client)

    def _send(self, client: Client) -> None:
        if self._stopping:  # and finished while it was thinking
            return
        request = next(self._requests)
        message = http_message(self._host, request)
        client.send(message, request, partial(self._answered, client, request))

    def _answered(
        self, client: Client, request: Request, latency_seconds: float, status: int, failure: str
    ) -> None:
        now, report = time.perf_counter(), self.report
        if failure or not 200 <= status < 300:
            failures = report.failures if now >= self.counts_from else report.warm_up_failures
            failures[failure or str(status)] += 1
        elif now >= self.counts_from:
            if now <= self.counts_until:
                report.latencies_seconds.append(latency_seconds)
            since = max(now - latency_seconds, self.counts_from)
            share = (min(now, self.counts_until) - since) / latency_seconds
            report.requests += share
            report.texts += share * request.texts
        if self._answers is not None:
            self._answers[client] += 1
            if self._answers.total() >= self._primer_requests and len(self._answers) == len(
                self._running
            ):
                self._answers = None
                self.warm.set()
        self._think_and_send(client)

    def _finish(self, client: Client) -> None:
        client.close()
        self._running.remove(client)
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
    answer_seconds: float = ANSWER_SECONDS,
) -> LoadReport:
    """Send `traffic` from `clients` clients and count for `seconds`.

    With `warm_up_seconds`, counting starts when they have passed, the primer is answered and each
    client has had an answer, or at the latest after a minute. A client thinks `think` seconds, from
    least to most, before each request. Answers are waited for `answer_seconds`.

    Raises:
        ValueError: `url` is not on this machine, or the load is past the bounds of this module.
    """
    if not (0 < clients <= MAX_CLIENTS and 0 < seconds <= MAX_SECONDS):
        raise ValueError(f"at most {MAX_CLIENTS} clients and {MAX_SECONDS:.0f} s")
    if not 0 <= warm_up_seconds <= MAX_WARM_UP_SECONDS:
        raise ValueError(f"at most {MAX_WARM_UP_SECONDS:.0f} s of warm-up")
    load = _ClosedLoop(local_address(url), traffic, clients, think)
    giving_up = asyncio.create_task(load.give_up_after(answer_seconds))
    try:
        load.start()
        if warm_up_seconds:
            await asyncio.sleep(warm_up_seconds)
            with suppress(TimeoutError):
                async with asyncio.timeout(MAX_WARM_UP_SECONDS - warm_up_seconds):
                    await load.warm.wait()
        cpu_before, load.counts_from = time.process_time(), time.perf_counter()
        await asyncio.sleep(seconds)
        load.counts_until = time.perf_counter()
        load.report.seconds = load.counts_until - load.counts_from
        load.report.cpu_seconds = time.process_time() - cpu_before
        # What is still under way is waited for: a server must not compute it in another's time.
        load.stop()
        await load.ended.wait()
    finally:
        giving_up.cancel()
    return load.report


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
    api: Annotated[Api, typer.Option(help="the server's")] = Api.ours,
) -> None:
    """Send load to a server on this machine."""
    try:
        traffic = make_traffic(kind, seed=seed, words=words, batch_texts=batch_texts, api=api)
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
