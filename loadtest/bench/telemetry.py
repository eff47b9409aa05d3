"""Measures the cost of a log line for every request, and of traces."""

from __future__ import annotations

import threading
import timeit
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from typing import Annotated, NamedTuple

import typer

from core import tracing
from core.command_output import JsonOption
from loadtest.bench.measure import Load, measure
from loadtest.bench.processes import cpu_seconds
from loadtest.bench.record import RecordOption, write_figures
from loadtest.bench.servers import Server, alone, our_service, site
from loadtest.table import console, make_table
from loadtest.traffic import Kind

CLIENTS = 8
WARM_UP_SECONDS = 2.0
# Those of a request that is answered from the cache: the request, the lookup, the log.
SPANS_OF_A_HIT = 3
USUAL = "as it is"


class Measured(NamedTuple):
    requests_per_second: float
    p50_ms: float
    cpu_ms: float  # of all processes of the service, a request


def main(
    rounds: Annotated[int, typer.Option(help="turns of each service")] = 5,
    seconds: Annotated[float, typer.Option(help="seconds of a turn")] = 6.0,
    record: RecordOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Send cached texts from 8 clients to four services in turn, of which one works at a time."""
    off_ns = _off_ns()
    turns: dict[str, list[Measured]] = defaultdict(list)
    with site() as where, _collector() as url, ExitStack() as stack:
        traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": url}
        sampled = {
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.01",
        }
        kinds: dict[str, Mapping[str, str]] = {
            USUAL: {},
            "log of every request": {"LOG_LEVEL": "DEBUG"},
            "traces of 1 in 100": traced | sampled,
            "traces of every request": traced,
        }
        servers = {}
        for name, settings in kinds.items():
            with console.status(f"starting: {name}"):
                servers[name] = stack.enter_context(our_service(where, **settings))
                servers[name].wait_until_ready()
        for turn in range(rounds):
            for name, server in servers.items():
                status = console.status(f"{name}, {turn + 1} of {rounds}")
                with status, alone(server, *servers.values()):
                    turns[name].append(_measure(server, seconds, turn))
    medians = {name: Measured(*map(median, zip(*of, strict=True))) for name, of in turns.items()}
    columns = ("", "requests/s", "p50 ms", "CPU ms a request")
    rows = [(name, *measured) for name, measured in medians.items()]
    console.print(make_table("Cached texts, 8 clients", columns, rows))
    share = SPANS_OF_A_HIT * off_ns / 1e6 / medians[USUAL].cpu_ms
    console.print(
        f"a span that is off: {off_ns:.0f} ns; those of a request: {share:.2%} of its CPU"
    )
    figures = {name: measured._asdict() for name, measured in medians.items()}
    write_figures(record, {"off_ns": off_ns, "figures": figures})


def _measure(server: Server, seconds: float, turn: int) -> Measured:
    before = cpu_seconds(server.pid)
    load = Load(Kind.repeated, CLIENTS, seconds, WARM_UP_SECONDS, seed=turn)
    figures = measure(server.url, load)
    # Every service gets the same warm-up.
    requests = figures["requests_per_second"] * (seconds + WARM_UP_SECONDS)
    cpu_ms = 1_000 * sum(cpu_seconds(server.pid, before).values()) / requests
    return Measured(figures["requests_per_second"], figures["p50_ms"], cpu_ms)


def _off_ns() -> float:
    """One span where nobody looks."""

    def span() -> None:
        with tracing.span("cache.lookup", {"texts": 1}):
            pass

    count = 100_000
    return 1e9 * min(timeit.repeat(span, number=count, repeat=5)) / count


class _Discard(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _collector() -> Iterator[str]:
    """Takes what is sent to it, and forgets it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Discard) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
