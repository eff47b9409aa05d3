"""A model of the way of a text through queues: where is the next bottleneck on more cores?

A closed loop of clients. A request takes its API process, then the runner's event loop, waits in
the runner's own queue (`runners.queue.TextQueue`, the real one), is computed in a batch by one of
the streams, and takes the API process again. Each process is a server with one core; a station that
is busy nearly all the time is the bottleneck. The service times are measured: CPU of each process
for a text, and the engine's time for a batch.
"""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table

from runners.queue import Call, Entry, TextQueue
from runners.windows import Windows

app = typer.Typer()

PLENTY = 1_000_000
WARM_UP = 0.2
# How often the speed of the streams is found from what the other processes leave of the cores.
ROUNDS = 8


@dataclass(frozen=True)
class Costs:
    """Service times in milliseconds, on one core."""

    api: float = 0.52  # of an API process for a text, half of it before the runner and half after
    loop: float = 0.03  # of the runner's event loop for a text
    behind: float = 0.08  # of the log shipper, PostgreSQL and Redis for a text: no request waits
    batch: float = 0.6  # of a batch, whatever is in it
    token: float = 0.049  # of a padded token of a batch


@dataclass(frozen=True)
class Machine:
    cores: int
    apis: int
    clients: int


@dataclass
class Station:
    """A server with one core: work is done in the order in which it comes."""

    free_at: float = 0.0
    busy: float = 0.0

    def serve(self, now: float, seconds: float) -> float:
        """When work that comes now will be done."""
        self.free_at = max(self.free_at, now) + seconds
        self.busy += seconds
        return self.free_at


@dataclass
class Outcome:
    seconds: float
    latencies: list[float]
    batches: list[int]
    busy: dict[str, float] = field(default_factory=dict)

    @property
    def texts_per_second(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return 1_000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class _Pending:
    """Stands for the future of a call that nobody cancels."""

    def done(self) -> bool:
        return False


class Simulation:
    """One run, with streams that are slowed down by `speed`."""

    def __init__(
        self, machine: Machine, costs: Costs, lengths: Callable[[], int], speed: float
    ) -> None:
        self._costs = costs
        self._lengths = lengths
        self._speed = speed
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._now = 0.0
        self._queue = TextQueue(PLENTY, PLENTY)
        self._apis = [Station() for _ in range(machine.apis)]
        self._loop = Station()
        self._streams = self._idle_streams = machine.cores
        self._streams_busy = 0.0
        self._clients: dict[int, tuple[int, float]] = {}
        self._done: list[tuple[float, float]] = []
        self._batches: list[int] = []
        for client in range(machine.clients):
            self._at(client * 1e-4, partial(self._send, client))

    def run(self, texts: int) -> Outcome:
        while len(self._done) < texts:
            self._now, _, action = heapq.heappop(self._events)
            action()
        skipped = int(WARM_UP * texts)
        kept = self._done[skipped:]
        outcome = Outcome(kept[-1][0] - kept[0][0], [latency for _, latency in kept], self._batches)
        # Work that has come counts, also what is not done yet.
        outcome.busy = {
            "API": min(1.0, max(station.busy for station in self._apis) / self._now),
            "runner's loop": min(1.0, self._loop.busy / self._now),
            "streams": min(1.0, self._streams_busy / self._now / self._streams),
        }
        return outcome

    def _at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), action))

    def _api(self, client: int) -> Station:
        return self._apis[client % len(self._apis)]

    def _send(self, client: int) -> None:
        sent = self._now
        there = self._api(client).serve(self._now, self._costs.api / 2_000)
        self._at(there, partial(self._enter_loop, client, sent))

    def _enter_loop(self, client: int, sent: float) -> None:
        there = self._loop.serve(self._now, self._costs.loop / 1_000)
        self._at(there, partial(self._enqueue, client, sent))

    def _enqueue(self, client: int, sent: float) -> None:
        call = Call(["a text"], "interactive", float("inf"), cast("Any", _Pending()), self._now)
        self._clients[id(call)] = client, sent
        self._queue.add(call, self._now)
        self._compute()

    def _compute(self) -> None:
        while self._idle_streams and self._queue:
            while (call := self._queue.next_call(self._now)) is not None:
                encoding: Any = SimpleNamespace(ids=range(self._lengths()))
                self._queue.add_tokenised(
                    call, [Windows([encoding], len(encoding.ids), unread=False)]
                )
            batch = self._queue.take(self._now)
            padded = len(batch) * batch[-1].tokens
            seconds = (self._costs.batch + padded * self._costs.token) / 1_000 / self._speed
            self._idle_streams -= 1
            self._streams_busy += seconds
            self._batches.append(len(batch))
            self._at(self._now + seconds, partial(self._answer, batch))

    def _answer(self, batch: list[Entry]) -> None:
        self._idle_streams += 1
        for entry in batch:
            client, sent = self._clients.pop(id(entry.call))
            answered = self._api(client).serve(self._now, self._costs.api / 2_000)
            self._at(answered, partial(self._finish, client, sent))
        self._compute()

    def _finish(self, client: int, sent: float) -> None:
        self._done.append((self._now, self._now - sent))
        self._send(client)


def simulate(machine: Machine, costs: Costs, lengths: Callable[[], int], texts: int) -> Outcome:
    """Simulate `texts` requests; the streams get the cores that the other processes leave."""
    speed = 1.0
    for _ in range(ROUNDS):
        outcome = Simulation(machine, costs, lengths, speed).run(texts)
        others = (costs.api + costs.loop + costs.behind) / 1_000 * outcome.texts_per_second
        left = max(0.05, min(1.0, (machine.cores - others) / machine.cores))
        speed = (speed + left) / 2  # half way, or it would swing
    return outcome


def usual_lengths(seed: int) -> Callable[[], int]:
    """Lengths of the benchmark's distinct texts: 31 to 35 tokens."""
    rng = random.Random(seed)
    return lambda: rng.randint(31, 35)


def any_lengths(seed: int) -> Callable[[], int]:
    """Lengths of any texts: half below 33 tokens, one in twenty above 120."""
    rng = random.Random(seed)
    return lambda: min(512, max(4, round(rng.lognormvariate(3.5, 0.8))))


def machines(clients_per_core: int) -> Iterator[Machine]:
    for cores in (2, 8, 16, 32, 128):
        for apis in sorted({1, max(1, cores // 4)}):
            yield Machine(cores, apis, max(64, clients_per_core * cores))


@app.command()
def main(
    *,
    texts: Annotated[int, typer.Option(help="requests of each line, a fifth is warm-up")] = 8_000,
    clients_per_core: Annotated[int, typer.Option(help="but 64 at least")] = 32,
    mixed: Annotated[bool, typer.Option("--mixed", help="texts of any length")] = False,
    api_ms: Annotated[float, typer.Option(help="CPU of an API process for a text")] = Costs.api,
    loop_ms: Annotated[float, typer.Option(help="CPU of the runner's loop")] = Costs.loop,
    token_ms: Annotated[float, typer.Option(help="engine's time for a token")] = Costs.token,
) -> None:
    """Simulate the queues of one machine: how many texts a second, and what limits them."""
    costs = Costs(api=api_ms, loop=loop_ms, token=token_ms)
    lengths = any_lengths if mixed else usual_lengths
    table = Table("cores", "APIs", "clients", "texts/s", "p50 ms", "p95 ms", "a batch",
                  "API busy", "loop busy", "streams")  # fmt: skip
    for machine in machines(clients_per_core):
        outcome = simulate(machine, costs, lengths(seed=1), texts)
        table.add_row(
            str(machine.cores), str(machine.apis), str(machine.clients),
            f"{outcome.texts_per_second:,.0f}", f"{outcome.percentile_ms(0.5):.0f}",
            f"{outcome.percentile_ms(0.95):.0f}", f"{statistics.mean(outcome.batches):.1f}",
            *(f"{share:.0%}" for share in outcome.busy.values()),
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    app()
