"""Calls one runner host over HTTP, with the messages of runners.wire.

BentoML's own client of a runner sends and reads pickles. It also closes its session every so many
requests or seconds, and the calls in flight with it. This client keeps its connections open.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Protocol
from urllib.parse import unquote, urlsplit

import aiohttp
from bentoml.exceptions import BentoMLException, ServiceUnavailable
from yarl import URL

from core import tracing
from core.errors import describe_error
from core.types import Classification, DesiredModel, LongText, RunnerDescription
from runners import wire
from runners.lanes import Lane

logger = logging.getLogger("bentoml.sentiment.runner")

# Every way in which a runner was seen to fail: error replies, lost connections, timeouts.
RUNNER_FAILURES = (BentoMLException, aiohttp.ClientError, OSError, TimeoutError)
# The host is gone, before its answer or in the middle of it; another can compute the same.
CONNECTION_FAILURES = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)
# No connection was made, so the host has none of the call.
NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)

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


class RunnerApi(Protocol):
    """The calls that a runner answers, in this process or in another one."""

    def classify(
        self,
        texts: list[str],
        timeout_seconds: float,
        lane: Lane,
        long_text: LongText = "truncate",
    ) -> Awaitable[list[Classification]]:
        """Classify `texts`; fails by itself after `timeout_seconds`."""

    def describe(self) -> Awaitable[RunnerDescription]: ...

    def load(self, desired: DesiredModel) -> Awaitable[RunnerDescription]: ...


class RemoteRunner(RunnerApi, Protocol):
    """A runner in another process, with connections to close."""

    def hang_up(self) -> None:
        """Leave the connections that calls share: the host has stopped answering."""

    async def close(self) -> None: ...


class CallLost(aiohttp.ClientConnectionError):
    """The host was lost while it had the call: it may have died of the texts."""


class BadReply(BentoMLException):
    """The runner's reply is not a message of the wire."""


def checked(
    results: list[Classification], texts: Sequence[str], long_text: LongText
) -> list[Classification]:
    """The results of a runner for `texts`; on a network another program may have sent them.

    Raises:
        BadReply: no model gives such results.
    """
    if len(results) != len(texts):
        raise BadReply(f"{len(results)} results came back for {len(texts)} texts")
    for result in results:
        if not result.is_distribution:
            raise BadReply("the scores of a text do not add up to 1")
        if not result.windows and long_text != "refuse":
            raise BadReply("no window of a text was computed")
    return results


class HttpRunner:
    """A runner host, at an `http(s):` URL or BentoML's `tcp:`, `unix:` or `file:`.

    Each method raises aiohttp.ClientConnectionError or aiohttp.ClientPayloadError if the connection
    breaks, TimeoutError, ServiceUnavailable if the runner is full (503), BadReply if its reply is
    not a message of the wire, and BentoMLException for any other error reply. A connection that
    breaks while the host may have texts raises CallLost, which is the first of these. Cancelling a
    call closes its connection, which tells the runner to drop the texts.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        """`key` is sent with each call. Must be called in a running event loop."""
        self._url = url
        parts = urlsplit(url)
        base = f"http://{parts.netloc}" if parts.scheme == "tcp" else url.rstrip("/")
        connect: Callable[..., aiohttp.BaseConnector] = aiohttp.TCPConnector
        if parts.scheme in ("unix", "file"):
            base, connect = "http://runner", partial(aiohttp.UnixConnector, unquote(parts.path))
        self._routes = {route: URL(base + route) for route in wire.CALL_PATHS}
        self._headers = {"Content-Type": wire.CONTENT_TYPE}
        if key is not None:
            self._headers[wire.KEY_HEADER] = key
        # Descriptions are requested every second; the same error is logged once until it ends.
        self._last_logged: str | None = None
        # Descriptions have connections of their own, so that a runner full of calls does not look
        # dead.
        self._calls = _session(connect)
        self._control = _session(connect)

    async def classify(
        self,
        texts: list[str],
        timeout_seconds: float,
        lane: Lane,
        long_text: LongText = "truncate",
    ) -> list[Classification]:
        """Classify `texts`; the i-th result belongs to the i-th text."""
        if timeout_seconds <= 0:
            raise TimeoutError
        call = wire.Classify(texts, timeout_seconds, lane, long_text)
        try:
            reply = await self._post(
                self._calls, wire.CLASSIFY_PATH, call, wire.Results, timeout_seconds
            )
        except NOT_SENT:
            raise
        except CONNECTION_FAILURES as error:
            raise CallLost(describe_error(error)) from error
        return checked(reply.results, texts, long_text)

    async def describe(self) -> RunnerDescription:
        """Get the description of the host."""
        return await self._post(
            self._control, wire.DESCRIBE_PATH, wire.Describe(), RunnerDescription
        )

    async def load(self, desired: DesiredModel) -> RunnerDescription:
        """Have the host begin to load another model."""
        return await self._post(self._control, wire.LOAD_PATH, desired, RunnerDescription)

    async def close(self) -> None:
        """Close all connections; calls in flight end with an error."""
        await self._calls.close()
        await self._control.close()

    async def _post(
        self,
        session: aiohttp.ClientSession,
        route: str,
        message: wire.Message,
        expected: type[wire.M],
        timeout_seconds: float = DESCRIBE_SECONDS,
    ) -> wire.M:
        body = wire.encode(message)
        timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=CONNECT_SECONDS)
        try:
            async with session.post(
                self._routes[route],
                data=body,
                headers=tracing.with_context(self._headers),
                timeout=timeout,
                allow_redirects=False,
            ) as reply:
                content = await _content_of(reply)
            try:
                decoded = wire.decode(content, expected)
            except wire.WireError as error:
                raise BadReply(f"the reply to {route}: {error}") from error
        except ServiceUnavailable:
            raise
        except BentoMLException as error:
            self._log_once(str(error))
            raise
        self._last_logged = None
        return decoded

    def _log_once(self, error: str) -> None:
        if error != self._last_logged:
            logger.error("runner %s: %s", self._url, error)
            self._last_logged = error


async def _content_of(reply: aiohttp.ClientResponse) -> bytes:
    """Read the body of a reply, if its status and headers announce an acceptable message."""
    if reply.status != HTTPStatus.OK:
        detail = (await reply.content.read(_MAX_ERROR_BYTES)).decode(errors="replace")
        is_full = reply.status == HTTPStatus.SERVICE_UNAVAILABLE
        error = ServiceUnavailable if is_full else BentoMLException
        raise error(f"the reply is {reply.status}: {detail}")
    if reply.content_type != wire.CONTENT_TYPE:
        raise BadReply(f"the reply is {reply.content_type}, not {wire.CONTENT_TYPE}")
    if reply.content_length is None or reply.content_length > MAX_REPLY_BYTES:
        raise BadReply(f"the reply has {reply.content_length} bytes")
    return await reply.read()


def _session(connect: Callable[..., aiohttp.BaseConnector]) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connect(limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
    )
