"""Calls one runner host over HTTP, with messages of our wire.

BentoML's own client of a runner sends and reads pickles, and closes its session, with the calls in
flight, every so many requests or seconds. This one keeps its connections as long as they hold.
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

KEY_HEADER = "X-Runner-Key"
# Of calls that carry texts. Shared ones are a few at a time; the bounds on tokens that wait keep
# the others below it, and what is past it waits for a connection.
MAX_CONNECTIONS = 100
# Idle ones are let go before the runner, which keeps them for KEEP_ALIVE_SECONDS, could end one
# just as a call is sent on it.
KEEP_ALIVE_SECONDS = 15.0
CONNECT_SECONDS = 5.0
# Nobody waits for a description as long as this; it is the end of a call that nobody cancelled.
DESCRIBE_SECONDS = 10.0
# 10,000 results of some 150 bytes, with room for more classes.
MAX_REPLY_BYTES = 16_777_216
_MAX_ERROR_BYTES = 1_000


class BadReply(BentoMLException):
    """The runner answered with what is no message of this wire."""


class HttpRunner:
    """One runner host, at an `http:` or `https:` URL, or at BentoML's `tcp:`, `unix:` or `file:`.

    Each method raises aiohttp.ClientConnectionError or aiohttp.ClientPayloadError if the connection
    breaks, TimeoutError, ServiceUnavailable if the runner takes no more (503), BadReply if its
    reply is not of this wire, and BentoMLException for any other error reply. A call that is
    cancelled closes its connection, by which the runner knows that nobody waits any more.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        """`key` is shown to the runner. Called in a running event loop."""
        self._url = url
        parts = urlsplit(url)
        base = url.rstrip("/")
        connect: Callable[[], aiohttp.BaseConnector] = _tcp
        if parts.scheme in ("unix", "file"):
            connect, base = lambda: _unix(_socket_path(url)), "http://runner"
        elif parts.scheme == "tcp":
            base = f"http://{parts.netloc}"
        self._routes = {route: URL(base + route) for route in ("/classify", "/describe", "/load")}
        self._headers = {"Content-Type": wire.CONTENT_TYPE}
        if key is not None:
            self._headers[KEY_HEADER] = key
        # What was last said of it in the log; a description is asked for every second.
        self._logged: str | None = None
        # One that is full of calls is not to look dead: descriptions have connections of their own.
        self._calls = _session(connect())
        self._control = _session(connect())

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
        return await self._post(
            self._control,
            "/describe",
            wire.encode_describe(),
            DESCRIBE_SECONDS,
            wire.decode_description,
        )

    async def load(self, tag: str | None, generation: int) -> RunnerDescription:
        """Have it begin to load another model, as `DesiredModel` says."""
        return await self._post(
            self._control,
            "/load",
            wire.encode_load(tag, generation),
            DESCRIBE_SECONDS,
            wire.decode_description,
        )

    async def close(self) -> None:
        """Close all connections; calls in flight end with an error."""
        await self._calls.close()
        await self._control.close()

    async def _post(
        self,
        session: aiohttp.ClientSession,
        route: str,
        body: bytes,
        timeout_seconds: float,
        decode: Callable[[bytes], T],
    ) -> T:
        try:
            content = await self._content(session, route, body, timeout_seconds)
            answer = _decoded(route, content, decode)
        except ServiceUnavailable:
            raise
        except BentoMLException as error:
            self._log(f"runner {self._url}: {error}")
            raise
        self._logged = None
        return answer

    async def _content(
        self, session: aiohttp.ClientSession, route: str, body: bytes, timeout_seconds: float
    ) -> bytes:
        timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=CONNECT_SECONDS)
        async with session.post(
            self._routes[route],
            data=body,
            headers=tracing.with_context(self._headers),
            timeout=timeout,
            allow_redirects=False,
        ) as reply:
            if reply.status != HTTPStatus.OK:
                raise await _error_of(reply)
            return await _content_of(reply)

    def _log(self, message: str) -> None:
        if message != self._logged:
            logger.error("%s", message)
            self._logged = message


def _decoded(route: str, content: bytes, decode: Callable[[bytes], T]) -> T:
    try:
        return decode(content)
    except wire.WireError as error:
        raise BadReply(f"the reply to {route}: {error}") from error


async def _error_of(reply: aiohttp.ClientResponse) -> BentoMLException:
    told = (await reply.content.read(_MAX_ERROR_BYTES)).decode(errors="replace")
    message = f"the reply is {reply.status}: {told}"
    if reply.status == HTTPStatus.SERVICE_UNAVAILABLE:
        return ServiceUnavailable(message)
    return BentoMLException(message)


async def _content_of(reply: aiohttp.ClientResponse) -> bytes:
    """The body of a reply, if it says that it is a message and of what size."""
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


def _tcp() -> aiohttp.BaseConnector:
    return aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_SECONDS)


def _unix(path: str) -> aiohttp.BaseConnector:
    return aiohttp.UnixConnector(path, limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_SECONDS)


def _socket_path(url: str) -> str:
    return unquote(urlsplit(url).path)
