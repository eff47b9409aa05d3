"""Runners under load in virtual time, and the metrics of them that an autoscaler asks for.

Kubernetes' own autoscaler decides; this says what it would measure of the pods that it has made.
"""

from __future__ import annotations

import json
import math
import ssl
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

from tests.http_servers import answering

# Virtual seconds in a second, and by what the windows of the autoscaler are divided.
SPEED = 15
TICK_SECONDS = 0.2
# The rates of the queries look back for a minute, and no wait counts as longer.
WINDOW_SECONDS = 60.0
LONGEST_WAIT_SECONDS = 0.115
# A runner on two cores, as measured: texts a second, seconds of a batch, and those after which a
# text that waits is refused.
CAPACITY = 700.0
BATCH_SECONDS = 0.02
MAX_WAIT_SECONDS = 1.0

Load = Callable[[float], float]


@dataclass
class RunnerPool:
    """The pods of one version: texts a second by virtual time, and what became of them."""

    load: Load
    # Virtual seconds between which nothing is measured.
    lost: tuple[float, float] = (math.inf, math.inf)
    now: float = 0.0
    pods: list[tuple[float, int]] = field(default_factory=list)
    refused: float = 0.0
    offered: float = 0.0
    _backlog: float = 0.0
    # Of the last minute: virtual time, computed texts, their wait, and the pods.
    _ticks: deque[tuple[float, float, float, int]] = field(default_factory=deque)

    def advance(self, seconds: float, pods: int) -> None:
        """Let time pass with so many ready pods."""
        self.now += seconds
        self.pods.append((self.now, pods))
        arrived = self.load(self.now) * seconds
        possible = pods * CAPACITY * seconds
        computed = min(self._backlog + arrived, possible)
        backlog = self._backlog + arrived - computed
        self._backlog = min(backlog, pods * CAPACITY * MAX_WAIT_SECONDS)
        self.offered += arrived
        self.refused += backlog - self._backlog
        share = computed / possible if possible else 1.0
        # The 90th percentile of an M/M/1 queue below saturation; a full queue above it.
        queued = BATCH_SECONDS * math.log(max(1.0, 10 * share)) / max(1 - share, 0.02)
        wait = self._backlog / (pods * CAPACITY) if pods else MAX_WAIT_SECONDS
        self._ticks.append((self.now, computed, min(MAX_WAIT_SECONDS, max(wait, queued)), pods))
        while self._ticks[0][0] < self.now - WINDOW_SECONDS:
            self._ticks.popleft()

    def metrics(self) -> tuple[float, float] | None:
        """What both queries answer: seconds, and percent; None while metrics are lost."""
        if not self._ticks or self.lost[0] <= self.now < self.lost[1]:
            return None
        ticks = list(self._ticks)
        computed = sum(texts for _, texts, _, _ in ticks)
        seconds = max(self.now - ticks[0][0], TICK_SECONDS * SPEED)
        pods = ticks[-1][3]
        load = 100 * computed / seconds / (CAPACITY * pods) if pods else 0.0
        rest = 0.1 * computed
        for _, texts, wait, _ in sorted(ticks, key=lambda tick: -tick[2]):
            rest -= texts
            if rest <= 0:
                return (min(wait, LONGEST_WAIT_SECONDS) if computed else 0.0), load
        return 0.0, load

    def changes(self, since: float = 0.0) -> list[int]:
        """By how many pods they became more or fewer, each time, from a virtual second on."""
        counts = [pods for at, pods in self.pods if at >= since]
        return [b - a for a, b in pairwise(counts) if a != b]

    def path(self) -> str:
        """The pods, at each change the virtual minute and how many there are."""
        steps = [(at, pods) for at, pods in self.pods[:1]]
        for at, pods in self.pods:
            if pods != steps[-1][1]:
                steps.append((at, pods))
        return ", ".join(f"{at / 60:.0f} min: {pods}" for at, pods in steps)

    def turns(self, since: float = 0.0) -> int:
        """How often growing turned into shrinking, or shrinking into growing."""
        signs = [change > 0 for change in self.changes(since)]
        return sum(a != b for a, b in pairwise(signs))


class ExternalMetrics(ThreadingHTTPServer):
    """external.metrics.k8s.io, as KEDA answers it: the metrics of the pools, by namespace."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pools: dict[str, RunnerPool] = {}
        key, certificate = folder / "metrics.key", folder / "metrics.crt"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
                *("-subj", "/CN=localhost", "-keyout", key, "-out", certificate),
            ],
            check=True,
            capture_output=True,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)


class _Handler(BaseHTTPRequestHandler):
    server: ExternalMetrics
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        group = "external.metrics.k8s.io/v1beta1"
        parts = self.path.partition("?")[0].strip("/").split("/")
        if len(parts) != 6:  # /apis/GROUP/VERSION: its kinds
            self._answer(200, {"kind": "APIResourceList", "groupVersion": group, "resources": []})
            return
        namespace, name = parts[4], parts[5]
        pool = self.server.pools.get(namespace)
        measured = pool.metrics() if pool else None
        if measured is None:
            self._answer(500, {"kind": "Status", "status": "Failure", "message": "no answer"})
            return
        value = measured[0] if name == "wait" else measured[1]
        item = {
            "metricName": name,
            "metricLabels": {},
            "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "value": f"{round(value * 1000)}m",
        }
        self._answer(
            200,
            {
                "kind": "ExternalMetricValueList",
                "apiVersion": group,
                "metadata": {},
                "items": [item],
            },
        )

    def _answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def answering_metrics(folder: Path) -> Iterator[ExternalMetrics]:
    with ExitStack() as stack:
        server = ExternalMetrics(folder)
        stack.enter_context(answering(server))
        yield server


def run_pools(
    pools: dict[str, RunnerPool], ready_pods: Callable[[str], int], virtual_seconds: float
) -> None:
    """Let time pass for all pools at once; `ready_pods` says how many a namespace has."""
    stop = threading.Event()
    started = last = time.monotonic()
    while last - started < virtual_seconds / SPEED:
        stop.wait(TICK_SECONDS)
        now = time.monotonic()
        for namespace, pool in pools.items():
            pool.advance((now - last) * SPEED, ready_pods(namespace))
        last = now
