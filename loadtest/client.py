"""One client: it sends its next request, on a connection that it keeps, when it has its answer.

An asyncio protocol over httptools, because it shares the machine's cores with what it measures: a
client library would cost several times as much for each request.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol, cast

import httptools
import orjson

from loadtest.traffic import REPLY_KEYS, Request

# Every body is searched for its first key; one in so many is parsed whole.
_PARSED_EVERY = 16
_RECONNECT_SECONDS = 0.1


class Caller(Protocol):
    """Who waits for the answers of a connection."""

    def answered(self, status: int, body: bytes, *, keep_alive: bool) -> None: ...

    def fail(self, failure: str) -> None:
        """Give up the request under way, and the connection."""
        ...

    def lost(self, connection: Connection) -> None: ...


class Load(Protocol):
    """What all clients of a load share."""

    host: str
    port: int
    stopping: bool

    def next_request(self) -> tuple[bytes, Request]:
        """The bytes to send, and what they are."""
        ...

    def think_seconds(self) -> float: ...

    def answered(
        self, client: Client, request: Request, latency_seconds: float, failure: str
    ) -> None:
        """`failure` is empty when all is well."""
        ...

    def finished(self, client: Client) -> None: ...


class Client:
    """Sends until the load stops; connects again when its connection is lost."""

    def __init__(self, load: Load) -> None:
        self.sent_at: float | None = None  # None while no request is under way
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._request: Request | None = None
        self._answers = 0
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Thinks first, so that clients that think do not all come at once."""
        self._think_and_send()

    def stop_if_idle(self) -> None:
        if self.sent_at is None:
            self._finish()

    def fail(self, failure: str) -> None:
        """Give up the request under way, if there is one, and its connection."""
        self._disconnect()
        if self._request is not None:
            self._done(self._request, failure)

    def lost(self, connection: Connection) -> None:
        if connection is self._connection:
            self.fail("disconnected")

    def answered(self, status: int, body: bytes, *, keep_alive: bool) -> None:
        if not keep_alive:
            self._disconnect()
        if self._request is None:  # nothing was asked
            return
        self._answers += 1
        if not 200 <= status < 300:
            failure = str(status)
        else:
            parsed = not self._answers % _PARSED_EVERY
            failure = "" if is_expected(body, self._request, parsed=parsed) else "body"
        self._done(self._request, failure)

    def _done(self, request: Request, failure: str) -> None:
        seconds = time.perf_counter() - (self.sent_at or 0.0)
        self._request = self.sent_at = None
        self._load.answered(self, request, seconds, failure)
        self._think_and_send()

    def _think_and_send(self) -> None:
        if self._load.stopping:
            self._finish()
        elif seconds := self._load.think_seconds():
            self._timer = self._loop.call_later(seconds, self._send)
        else:
            self._send()

    def _send(self) -> None:
        if self._connection is None:
            self._connecting = self._loop.create_task(self._connect_and_send())
            return
        message, self._request = self._load.next_request()
        self.sent_at = time.perf_counter()
        self._connection.transport.write(message)

    async def _connect_and_send(self) -> None:
        while True:
            try:
                _, self._connection = await self._loop.create_connection(
                    lambda: Connection(self), self._load.host, self._load.port
                )
            except OSError as error:
                _, request = self._load.next_request()
                self._load.answered(self, request, 0.0, type(error).__name__)
                await asyncio.sleep(_RECONNECT_SECONDS)
            else:
                self._connecting = None
                self._send()
                return

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.transport.abort()
            self._connection = None

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        self._disconnect()
        self._load.finished(self)


def is_expected(body: bytes, request: Request, *, parsed: bool) -> bool:
    """Whether that is an answer to the request: by its first key, or parsed whole."""
    keys = REPLY_KEYS[request.path]
    if not parsed:
        return keys[0].encode() in body
    try:
        reply = orjson.loads(body)
    except ValueError:
        return False
    return isinstance(reply, dict) and all(key in reply for key in keys)


class Connection(asyncio.Protocol):
    """Parses answers; the methods have the names that asyncio and httptools call."""

    transport: asyncio.Transport

    def __init__(self, client: Caller) -> None:
        self._client = client
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._client.fail("malformed")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._body)
        self._body.clear()
        self._client.answered(
            self._parser.get_status_code(), body, keep_alive=self._parser.should_keep_alive()
        )

    def connection_lost(self, _error: Exception | None) -> None:
        self._client.lost(self)
