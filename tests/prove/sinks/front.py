"""An HTTP server in front of a store: it forwards requests, unless a test wants otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event
from typing import Literal

from tests.http_servers import answering

Fault = Literal["down", "refuses", "fails", "hangs"]
_STATUS = {"refuses": 403, "fails": 503}
_WRITES = frozenset({"PUT", "POST"})
# Of one connection, or computed by the server that answers.
_OF_A_HOP = frozenset({"connection", "transfer-encoding", "content-length", "server", "date"})
STORE_SECONDS = 30.0


class Front:
    """Forwards to the store at a local port."""

    def __init__(self, store_port: int) -> None:
        self.store_port = store_port
        self.fault: Fault | None = None
        # Called around each write: before the store has it, and when it has, before the reply.
        self.before_write: Callable[[], None] = lambda: None
        self.after_write: Callable[[], None] = lambda: None
        self.writes = 0
        self.recovered = Event()

    def recover(self) -> None:
        self.fault = None
        self.recovered.set()

    @contextmanager
    def listening(self) -> Iterator[str]:
        """Its URL, until the block ends."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        with answering(server):
            try:
                yield f"http://127.0.0.1:{server.server_port}"
            finally:
                self.recover()


def _handler(front: Front) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            body = self._body()
            is_write = self.command in _WRITES
            front.writes += is_write
            if front.fault == "down":
                self.close_connection = True
                return
            if front.fault == "hangs":
                front.recovered.wait()
                self.close_connection = True
                return
            if front.fault is not None:
                self._answer(_STATUS[front.fault], {}, b"")
                return
            if is_write:
                front.before_write()
            there = HTTPConnection("127.0.0.1", front.store_port, timeout=STORE_SECONDS)
            headers = {
                name: value for name, value in self.headers.items() if name.lower() not in _OF_A_HOP
            }
            there.request(self.command, self.path, body, headers)
            reply = there.getresponse()
            answered = reply.read()
            there.close()
            if is_write:
                front.after_write()
            self._answer(reply.status, dict(reply.getheaders()), answered)

        def do_GET(self) -> None:
            self._forward()

        def do_HEAD(self) -> None:
            self._forward()

        def do_PUT(self) -> None:
            self._forward()

        def do_POST(self) -> None:
            self._forward()

        def do_DELETE(self) -> None:
            self._forward()

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in _OF_A_HOP:
                    self.send_header(name, value)
            size = headers.get("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", size or str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler
