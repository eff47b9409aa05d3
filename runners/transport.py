"""Calls one runner host over HTTP, with the messages of runners.wire.

BentoML's own client of a runner sends and reads pickles. It also closes its session every so many
requests or seconds, and the calls in flight with it. This client keeps its connections open.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import aiohttp
from bentoml.exceptions import BentoMLException, ServiceUnavailable
from yarl import URL

from core import tracing
from core.types import Classification, RunnerDescription
from runners import wire
from runners.lanes import Lane

logger = logging.getLogger("bentoml.sentiment.runner")

T = TypeVar("T")

# Every way in which a runner was seen to fail: error replies, lost connections, timeouts.
RUNNER_FAILURES = (BentoMLException, aiohttp.ClientError, OSError, TimeoutError)
# The host is gone, before its answer or in the middle of it; another can compute the same.
CONNECTION_FAILURES = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)

# Of calls that carry texts. Only a few calls that requests share are in flight at a time, and the
# bounds of the queue limit the bulk calls; a call past this limit waits for a connection.
MAX_CONNECTIONS = 100
# The runner closes idle connections too. This client must do it first, or a call could be sent on a
# connection that is just being closed.
KEEP_ALIVE_SECONDS = 15.0
CONNECT_SECONDS = 5.0
# Callers cancel a description sooner; this ends a call that nobody cancelled.
DESCRIBE_SECONDS = 10.0
# 10,000 results of some 150 bytes, with room for more classes.
MAX_REPLY_BYTES = 16_777_216
_MAX_ERROR_BYTES = 1_000


class BadReply(BentoMLException):
    """The runner's reply is not a message of the wire."""


class HttpRunner:
    """A runner host, at an `http(s):` URL or BentoML's `tcp:`, `unix:` or `file:`.

    Each method raises aiohttp.ClientConnectionError or aiohttp.ClientPayloadError if the connection
    breaks, TimeoutError, ServiceUnavailable if the runner is full (503), BadReply if its reply is
    not a message of the wire, and BentoMLException for any other error reply. Cancelling a call
    closes its connection, which tells the runner to drop the texts.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        """`key` is sent with each call. Must be called in a running event loop."""
        self._url = url
        parts = urlsplit(url)
        base = url.rstrip("/")
        connector: Callable[[], aiohttp.BaseConnector] = _tcp_connector
        if parts.scheme in ("unix", "file"):
            connector, base = lambda: _unix_connector(_socket_path(url)), "http://runner"
        elif parts.scheme == "tcp":
            base = f"http://{parts.netloc}"
        self._routes = {route: URL(base + route) for route in ("/classify", "/describe", "/load")}
        self._headers = {"Content-Type": wire.CONTENT_TYPE}
        if key is not None:
            self._headers[wire.KEY_HEADER] = key
        # Descriptions are requested every second; the same error is logged once until it ends.
        self._last_logged: str | None = None
        # Descriptions have connections of their own, so that a runner full of calls does not look
        # dead.
        self._calls = _session(connector())
        self._control = _session(connector())

    async def classify(
        self, texts: list[str], timeout_seconds: float, lane: Lane
    ) -> list[Classification]:
        """Classify `texts`; the i-th result belongs to the i-th text."""
        if timeout_seconds <= 0:
            raise TimeoutError
        body = wire.encode_classify(texts, timeout_seconds, lane)
        results = await self._post(
            self._calls, "/classify", body, timeout_seconds, wire.decode_classifications
        )
        if len(results) != len(texts):
            raise BadReply(f"{len(results)} results came back for {len(texts)} texts")
        return results

    async def describe(self) -> RunnerDescription:
        """Get the description of the host."""
        return await self._control_call("/describe", wire.encode_describe())

    async def load(self, tag: str | None, generation: int) -> RunnerDescription:
        """Have the host begin to load another model; arguments as in `DesiredModel`."""
        return await self._control_call("/load", wire.encode_load(tag, generation))

    async def close(self) -> None:
        """Close all connections; calls in flight end with an error."""
        await self._calls.close()
        await self._control.close()

    async def _control_call(self, route: str, body: bytes) -> RunnerDescription:
        return await self._post(
            self._control, route, body, DESCRIBE_SECONDS, wire.decode_description
        )

    async def _post(
        self,
        session: aiohttp.ClientSession,
        route: str,
        body: bytes,
        timeout_seconds: float,
        decode: Callable[[bytes], T],
    ) -> T:
        timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=CONNECT_SECONDS)
        try:
            async with session.post(
                self._routes[route],
                data=body,
                headers=tracing.with_context(self._headers),
                timeout=timeout,
                allow_redirects=False,
            ) as reply:
                if reply.status != HTTPStatus.OK:
                    raise await _error_of(reply)
                content = await _content_of(reply)
            message = _decoded(route, content, decode)
        except ServiceUnavailable:
            raise
        except BentoMLException as error:
            self._log(f"runner {self._url}: {error}")
            raise
        self._last_logged = None
        return message

    def _log(self, line: str) -> None:
        if line != self._last_logged:
            logger.error("%s", line)
            self._last_logged = line


def _decoded(route: str, content: bytes, decode: Callable[[bytes], T]) -> T:
    try:
        return decode(content)
    except wire.WireError as error:
        raise BadReply(f"the reply to {route}: {error}") from error


async def _error_of(reply: aiohttp.ClientResponse) -> BentoMLException:
    detail = (await reply.content.read(_MAX_ERROR_BYTES)).decode(errors="replace")
    message = f"the reply is {reply.status}: {detail}"
    if reply.status == HTTPStatus.SERVICE_UNAVAILABLE:
        return ServiceUnavailable(message)
    return BentoMLException(message)


async def _content_of(reply: aiohttp.ClientResponse) -> bytes:
    """Read the body of a reply, if its headers announce an acceptable message."""
    if reply.content_type != wire.CONTENT_TYPE:
        raise BadReply(f"the reply is {reply.content_type}, not {wire.CONTENT_TYPE}")
    if reply.content_length is None or reply.content_length > MAX_REPLY_BYTES:
        raise BadReply(f"the reply has {reply.content_length} bytes")
    return await reply.read()


def _session(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
    )


def _tcp_connector() -> aiohttp.BaseConnector:
    return aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_SECONDS)


def _unix_connector(path: str) -> aiohttp.BaseConnector:
    return aiohttp.UnixConnector(path, limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_SECONDS)


def _socket_path(url: str) -> str:
    return unquote(urlsplit(url).path)
