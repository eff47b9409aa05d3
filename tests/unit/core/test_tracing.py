"""Tracing: spans, trace headers, and no cost without a collector."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags

from core import tracing
from core.own_url import url_of
from core.paths import ROOT
from tests.http_servers import answering

# Runs in a separate process, because OpenTelemetry is configured once per process.
WITHOUT_COLLECTOR = """
import time
from core import tracing
tracing.start_tracing("lonely")
started = time.perf_counter()
for number in range(5_000):
    with tracing.span("a", {"number": number}):
        assert tracing.current() is not None
assert time.perf_counter() - started < 5
stopping = time.perf_counter()
tracing.stop_tracing()
assert not tracing.is_on()
print(time.perf_counter() - stopping)
"""


def test_unreachable_collector_delays_the_end_only_briefly() -> None:
    environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_COLLECTOR],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < tracing.FLUSH_SECONDS + 2


class Collector(BaseHTTPRequestHandler):
    paths: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.paths.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class IPv6Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6


@pytest.mark.parametrize(
    ("host", "server"),
    [("127.0.0.1", ThreadingHTTPServer), ("localhost", ThreadingHTTPServer), ("::1", IPv6Server)],
)
def test_proxy_of_the_environment_is_not_asked_for_a_collector_on_this_machine(
    host: str, server: type[ThreadingHTTPServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    Collector.paths.clear()
    with answering(collector := server(("::1" if host == "::1" else "127.0.0.1", 0), Collector)):
        url = url_of(host, collector.server_address[1])
        exporter = tracing.make_exporter(f"{url}/v1/traces")
        assert exporter.export([]) is SpanExportResult.SUCCESS
    assert Collector.paths == ["/v1/traces"]


def test_proxy_of_the_environment_is_asked_for_a_collector_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Collector.paths.clear()
    with answering(proxy := ThreadingHTTPServer(("127.0.0.1", 0), Collector)):
        address = f"http://127.0.0.1:{proxy.server_address[1]}"
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, address)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        exporter = tracing.make_exporter("http://collector.example:4318/v1/traces")
        assert exporter.export([]) is SpanExportResult.SUCCESS
    assert Collector.paths == ["http://collector.example:4318/v1/traces"]


def test_span_is_none_while_tracing_is_off() -> None:
    assert not tracing.is_on()
    with tracing.span("a", {"texts": 1}) as span:
        assert span is None
        assert tracing.current() is None
    assert tracing.span("a") is tracing.span("b")
    tracing.record("a", SpanContext(1, 2, is_remote=False), tracing.now_ns())
    tracing.stop_tracing()


def test_trace_parent_survives_a_round_trip() -> None:
    context = SpanContext(2**127 + 1, 2**63 + 1, is_remote=True, trace_flags=TraceFlags(1))
    written = tracing.trace_parent(context)
    assert written == "00-80000000000000000000000000000001-8000000000000001-01"
    assert tracing.parse_trace_parent(written) == context
    assert tracing.trace_parent(None) is None


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"traceparent", b"nonsense")],
        [(b"traceparent", b"\xff\xfe")],
        [(b"traceparent", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01")],
        [(b"baggage", b"a=b," * 5_000)],
    ],
)
def test_invalid_trace_headers_raise_no_error(headers: list[tuple[bytes, bytes]]) -> None:
    tracing.parent_from_headers(headers)


class Endless(BaseHTTPRequestHandler):
    """Answers with a body that does not end until the client leaves."""

    is_left = threading.Event()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(bytes(1 << 16))
        except OSError:
            self.is_left.set()

    def log_message(self, *_: object) -> None:
        pass


def test_answer_of_a_collector_without_an_end_is_not_read() -> None:
    with answering(collector := ThreadingHTTPServer(("127.0.0.1", 0), Endless)):
        url = url_of("127.0.0.1", collector.server_address[1])
        exporter = tracing.make_exporter(f"{url}/v1/traces")
        assert exporter.export([]) is SpanExportResult.SUCCESS
        assert Endless.is_left.wait(5)
