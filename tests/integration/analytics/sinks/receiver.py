"""A receiver of CloudEvents over HTTP, which answers as a test wants it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event
from typing import Any

from tests.http_servers import answering

Events = list[dict[str, Any]]


@dataclass
class Received:
    """A request: when it came is its place in the list of all."""

    headers: dict[str, str]
    events: Events
    status: int


@dataclass
class Receiver:
    """Takes events, unless `answer` says otherwise: a status and headers for each request."""

    url: str = ""
    requests: list[Received] = field(default_factory=list)
    answer: Callable[[Events], tuple[int, dict[str, str]]] = lambda _: (202, {})
    hangs: Event = field(default_factory=Event)
    released: Event = field(default_factory=Event)

    @property
    def ids(self) -> list[str]:
        """The ids of the events that were taken, with repeats."""
        taken = (request.events for request in self.requests if request.status < 300)
        return [event["id"] for events in taken for event in events]


@contextmanager
def receiver(port: int = 0) -> Iterator[Receiver]:
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            events = body if isinstance(body, list) else [body]
            if made.hangs.is_set():
                made.released.wait(20)
            status, headers = made.answer(events)
            made.requests.append(Received(dict(self.headers), events, status))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    made.url = f"http://127.0.0.1:{server.server_port}/predictions"
    with answering(server):
        try:
            yield made
        finally:
            made.released.set()
