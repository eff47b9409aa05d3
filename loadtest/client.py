"""One client: it sends a request on a connection that it keeps, and tells what became of it.

An asyncio protocol over httptools, because it shares the machine's cores with what it measures: a
client library would cost several times as much for each request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

import httptools

from loadtest.replies import PARSED_EVERY, is_expected
from loadtest.traffic import LOOPBACK, Request

_RECONNECT_SECONDS = 0.1

# Gets the seconds since the request was sent, and the status of its reply and no failure, or 0 and
# the reason why there is no right reply.
Done = Callable[[float, int, str], None]


class Client(asyncio.Protocol):
    """Sends one request at a time; connects before the first and when its connection is lost.

    The methods without a docstring have the names that asyncio and httptools call.
    """

    def __init__(self, host: str, port: int) -> None:
        self.sent_at: float | None = None  # None while no request is under way
        self._address = host, port
        self._transport: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._body: list[bytes] = []
        self._answers = 0

    def send(self, message: bytes, request: Request, done: Done) -> None:
        """Send `message`, which is `request`; `done` is called once."""
        self._request, self._done, self.sent_at = request, done, time.perf_counter()
        if self._transport is not None:
            self._transport.write(message)
        else:
            self._connecting = asyncio.create_task(self._connect_and_send(message))

    def fail(self, failure: str) -> None:
        """Give up the request under way, if there is one, and its connection."""
        self.close()
        self._end(0, failure)

    def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        if self._transport is not None:
            self._transport.set_protocol(asyncio.Protocol())  # which ignores that it is lost
            self._transport.abort()
            self._transport = None

    async def _connect_and_send(self, message: bytes) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, *self._address)
        except OSError as error:
            await asyncio.sleep(_RECONNECT_SECONDS)
            self._end(0, type(error).__name__)
        else:
            self.sent_at = time.perf_counter()
            cast("asyncio.Transport", self._transport).write(message)

    def _end(self, status: int, failure: str = "") -> None:
        if self.sent_at is not None:
            seconds, self.sent_at = time.perf_counter() - self.sent_at, None
            self._done(seconds, status, failure)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.fail("malformed")

    def on_message_begin(self) -> None:
        self._body.clear()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if not self._parser.should_keep_alive():
            self.close()
        self._answers += 1
        parsed = not self._answers % PARSED_EVERY
        if status >= 300 or is_expected(b"".join(self._body), self._request, parsed=parsed):
            self._end(status)
        else:
            self._end(0, "body")

    def connection_lost(self, _error: Exception | None) -> None:
        self.fail("disconnected")


def local_address(url: str) -> tuple[str, int]:
    """The host and port of `url`.

    Raises:
        ValueError: it is not on this machine.
    """
    parts = urlsplit(url)
    if parts.hostname not in LOOPBACK:
        raise ValueError("load is sent to this machine only")
    return parts.hostname, parts.port or 80


def http_message(host: str, request: Request) -> bytes:
    head = (
        f"POST {request.path} HTTP/1.1\r\nHost: {host}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(request.body)}\r\n\r\n"
    )
    return head.encode() + request.body
