"""What a text costs outside the engine: `python -m loadtest.bench.outside`.

Two measurements, of the saved models on this machine, which has to be quiet:

* *A runner with a null engine*, which answers at once: its process on one core, its caller on
  another. Everything else is real: stream, queue, packing, tokenizer, results.
* *CPU time of each process* for a text, of the served product, by new texts and by cached ones.
  In a runner the event loop is apart from the threads that tokenise and compute.

`python -m loadtest.bench.one_client` measures the time of one client.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import httpx
import numpy as np
import psutil
import uvloop
from numpy.typing import NDArray

from core.settings import get_settings
from core.types import VERSIONS
from loadtest.bench.measure import Load, measure
from loadtest.bench.own_process import own_process
from loadtest.bench.processes import of_each_role
from loadtest.bench.servers import Server, configured_models, our_service, site
from loadtest.table import console, make_table
from loadtest.traffic import Kind, texts_of
from runners.batching import TokenBatcher
from runners.classifier import Classifier
from runners.model_store import SavedModel
from runners.queue import TextQueue
from runners.stream import StreamRunner
from runners.stream_endpoint import StreamEndpoint

CALLERS = 256
SECONDS = 8.0
WARM_UP_SECONDS = 2.0
LOADS = ((Kind.distinct, 64), (Kind.repeated, 8))
TIMEOUT_SECONDS = 30.0
MAX_FRAME_BYTES = 1 << 20
LOOPS, THREADS = "runners' event loops", "runners' tokenizers and engines"


class NullEngine:
    """Finds every class as likely as the others."""

    name = "null"

    def __init__(self, classes: int) -> None:
        self._classes = classes

    def infer(
        self,
        input_ids: NDArray[np.int64],
        attention_mask: NDArray[np.int64],  # noqa: ARG002
    ) -> NDArray[np.float32]:
        return np.zeros((len(input_ids), self._classes), np.float32)


@dataclass(frozen=True)
class Ceiling:
    """Of a runner process with the null engine, while its callers have as many texts as they can.

    The event loop waits for the batcher's thread to release the interpreter, and that for the loop:
    the process has one core, and is at its ceiling if it is busy all the time.
    """

    texts_per_second: float
    busy_percent: float  # of its core
    loop_us: float  # CPU time of a text
    thread_us: float


@dataclass(frozen=True)
class _Spent:
    seconds: float
    loop: float
    process: float


class _Stream(StreamEndpoint):
    """Says when it has opened and ended."""

    def __init__(self, batcher: TokenBatcher) -> None:
        super().__init__(lambda: batcher, set(), MAX_FRAME_BYTES)
        self.opened, self.ended = asyncio.Event(), asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.opened.set()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.ended.set()


class _Agreement(asyncio.Protocol):
    """Agrees to a stream, as the HTTP server of a runner does, and hands the connection over."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:  # noqa: ARG002  the head, in one piece
        self._transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        self._transport.set_protocol(self._stream)
        self._stream.connection_made(self._transport)


def answer_at_once(model: SavedModel, socket: str, core: int) -> _Spent:
    """Serve one stream on `core` until its caller hangs up; what it took after the warm-up."""
    os.sched_setaffinity(0, {core})
    return uvloop.run(_answer_at_once(model, socket))


async def _answer_at_once(model: SavedModel, socket: str) -> _Spent:
    settings = get_settings()
    queue = TextQueue(settings.max_queued_texts, settings.max_queued_tokens)
    classifier = Classifier(model, NullEngine(len(model.labels)))
    batcher = TokenBatcher(classifier, "v1", queue, streams=1)
    stream = _Stream(batcher)
    server = await asyncio.get_running_loop().create_unix_server(lambda: _Agreement(stream), socket)
    await stream.opened.wait()
    await asyncio.sleep(WARM_UP_SECONDS)
    before = time.perf_counter(), time.thread_time(), time.process_time()
    await asyncio.sleep(SECONDS)
    after = time.perf_counter(), time.thread_time(), time.process_time()
    await stream.ended.wait()
    server.close()
    batcher.close()
    return _Spent(*(later - earlier for earlier, later in zip(before, after, strict=True)))


async def _call_for(socket: str, core: int) -> float:
    """Send single texts from `CALLERS` at a time; returns how many were answered in a second."""
    os.sched_setaffinity(0, {core})
    runner = StreamRunner(f"unix://{socket}")
    texts = list(itertools.islice(texts_of(Kind.distinct, seed=0), 20_000))
    next_text = itertools.cycle(texts)
    ends_at = time.perf_counter() + WARM_UP_SECONDS + SECONDS
    counted_from = ends_at - SECONDS
    answered = 0

    async def keep_calling() -> None:
        nonlocal answered
        while (now := time.perf_counter()) < ends_at:
            await runner.classify([next(next_text)], TIMEOUT_SECONDS, "interactive")
            answered += now >= counted_from

    try:
        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS):
                callers.create_task(keep_calling())
        return answered / (time.perf_counter() - counted_from)
    finally:
        await runner.close()


def measure_ceiling(model: SavedModel, folder: Path) -> Ceiling:
    """The ceiling of one runner process on a core of its own."""
    socket = str(folder / "s")
    runner_core, caller_core, *_ = sorted(os.sched_getaffinity(0))
    with own_process() as runner, own_process() as caller:
        spent = runner.submit(answer_at_once, model, socket, runner_core)
        _wait_for(socket, spent)
        rate = caller.submit(_run_calls, socket, caller_core).result()
        took = spent.result()
    texts = rate * took.seconds
    return Ceiling(
        texts_per_second=rate,
        busy_percent=100 * took.process / took.seconds,
        loop_us=1e6 * took.loop / texts,
        thread_us=1e6 * (took.process - took.loop) / texts,
    )


def _run_calls(socket: str, core: int) -> float:
    return uvloop.run(_call_for(socket, core))


def _wait_for(socket: str, serving: Future[_Spent]) -> None:
    while not Path(socket).exists():
        if serving.done():
            serving.result()  # raises what ended it
        time.sleep(0.01)


def cpu_ms_of_a_text(server: Server, load: Load) -> dict[str, float]:
    """CPU time of each role for a text, a runner's event loop apart from its other threads."""
    before = _cpu_seconds(server.pid)
    figures = measure(server.url, load)
    after = _cpu_seconds(server.pid)
    # The warm-up counts in the CPU time, and not in the answers.
    share = figures["seconds"] / (figures["seconds"] + WARM_UP_SECONDS)
    return {
        role: 1_000 * (seconds - before.get(role, 0.0)) * share / figures["answers"]
        for role, seconds in after.items()
    }


def _cpu_seconds(pid: int) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for role, process, times in of_each_role(pid, psutil.Process.cpu_times):
        spent = {role: times.user + times.system}
        if role in VERSIONS:
            [loop] = [thread for thread in process.threads() if thread.id == process.pid]
            in_loop = loop.user_time + loop.system_time
            spent = {LOOPS: in_loop, THREADS: spent[role] - in_loop}
        for part, spent_seconds in spent.items():
            seconds[part] = seconds.get(part, 0.0) + spent_seconds
    return seconds


def main() -> None:
    model = configured_models()["v1"]
    with TemporaryDirectory(prefix="outside-") as folder:
        ceiling = measure_ceiling(model, Path(folder))
    console.print(
        make_table(
            "a runner process with a null engine, on one core",
            ["texts/s", "busy, %", "event loop, us", "batcher and tokenizer, us"],
            [[*vars(ceiling).values()]],
        )
    )
    with site() as where, our_service(where) as server:
        server.wait_until_ready()
        health = httpx.get(f"{server.url}/health").raise_for_status().json()
        engine = health["versions"]["v1"]["engine"]
        for kind, clients in LOADS:
            load = Load(kind, clients, SECONDS, WARM_UP_SECONDS, seed=clients)
            costs = {role: ms for role, ms in cpu_ms_of_a_text(server, load).items() if ms > 0.001}
            costs["all but the last"] = sum(costs.values()) - costs.get(THREADS, 0.0)
            console.print(
                make_table(
                    f"CPU time of a text, ms: {kind}, {clients} clients, {engine}",
                    ["process", "ms"],
                    sorted(costs.items(), key=lambda cost: (cost[0] == THREADS, -cost[1])),
                )
            )


if __name__ == "__main__":
    main()
