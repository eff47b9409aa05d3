"""Measures the cost of a log line for every request, and of traces."""

from __future__ import annotations

import threading
import timeit
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Annotated, NamedTuple

import psutil
import typer
from rich.console import Console
from rich.table import Table

from core import tracing
from loadtest.bench.measure import Load, measure
from loadtest.bench.record import write_figures
from loadtest.bench.servers import Server, our_service, site
from loadtest.traffic import Kind

CLIENTS = 8
WARM_UP_SECONDS = 2.0
# Those of a request that is answered from the cache: the request, the lookup, the log.
SPANS_OF_A_HIT = 3
USUAL = "as it is"
console = Console(highlight=False)


class Measured(NamedTuple):
    requests_per_second: float
    p50_ms: float
    cpu_ms: float  # of all processes of the service, a request


def main(
    rounds: Annotated[int, typer.Option(help="turns of each service")] = 5,
    seconds: Annotated[float, typer.Option(help="seconds of a turn")] = 6.0,
    record: Annotated[Path | None, typer.Option(help="a JSON file for the figures")] = None,
) -> None:
    """Send cached texts from 8 clients to four services in turn, of which one works at a time."""
    off_ns = _off_ns()
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
        turns: dict[str, list[Measured]] = defaultdict(list)
        for turn in range(rounds):
            for name, server in servers.items():
                with console.status(f"{name}, {turn + 1} of {rounds}"), ExitStack() as others:
                    for other in servers.values():
                        if other is not server:
                            others.enter_context(other.paused())
                    turns[name].append(_measure(server, seconds, turn))
    medians = {name: Measured(*map(median, zip(*of, strict=True))) for name, of in turns.items()}
    _print(medians, off_ns)
    if record is not None:
        figures = {name: measured._asdict() for name, measured in medians.items()}
        write_figures(record, {"off_ns": off_ns, "figures": figures})


def _measure(server: Server, seconds: float, turn: int) -> Measured:
    before = _cpu_seconds(server)
    load = Load(Kind.repeated, CLIENTS, seconds, WARM_UP_SECONDS, seed=turn)
    figures = measure(server.url, load)
    # Every service gets the same warm-up.
    requests = figures["requests_per_second"] * (seconds + WARM_UP_SECONDS)
    cpu_ms = 1_000 * (_cpu_seconds(server) - before) / requests
    return Measured(figures["requests_per_second"], figures["p50_ms"], cpu_ms)


def _cpu_seconds(server: Server) -> float:
    root = psutil.Process(server.process.pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return float(sum(of.user + of.system for of in times))


def _off_ns() -> float:
    """One span where nobody looks."""

    def span() -> None:
        with tracing.span("cache.lookup", {"texts": 1}):
            pass

    count = 100_000
    return 1e9 * min(timeit.repeat(span, number=count, repeat=5)) / count


def _print(medians: Mapping[str, Measured], off_ns: float) -> None:
    table = Table(title="Cached texts, 8 clients", title_justify="left")
    for column in ("", "requests/s", "p50 ms", "CPU ms a request"):
        table.add_column(column, justify="left" if not column else "right")
    for name, of in medians.items():
        table.add_row(
            name, f"{of.requests_per_second:,.0f}", f"{of.p50_ms:.2f}", f"{of.cpu_ms:.3f}"
        )
    console.print(table)
    share = SPANS_OF_A_HIT * off_ns / 1e6 / medians[USUAL].cpu_ms
    console.print(
        f"a span that is off: {off_ns:.0f} ns; those of a request: {share:.2%} of its CPU"
    )


@contextmanager
def _collector() -> Iterator[str]:
    """Takes what is sent to it, and forgets it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
