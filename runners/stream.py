"""Calls one runner host over a stream: one connection, on which each call goes out at once.

An HTTP call costs either side half a millisecond, so calls over HTTP have to be shared and wait for
each other. A message on a stream costs some microseconds. Each text reaches the runner's queue as
soon as it is there, and its answer comes back as soon as it is computed.

The stream begins as an HTTP request for another protocol (RFC 9110, 7.8), on the port and with the
key of the other calls. A host of an older release ignores the wish, and so may a proxy; then each
call is an HTTP request of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import cast
from urllib.parse import unquote, urlsplit

import aiohttp
from bentoml.exceptions import BentoMLException, ServiceUnavailable

from core import tracing
from core.types import Classification, DesiredModel, LongText, RunnerDescription
from runners import wire
from runners.framing import FrameReader, FrameTooLarge, FrameWriter
from runners.lanes import Lane
from runners.transport import (
    CONNECT_SECONDS,
    MAX_REPLY_BYTES,
    BadReply,
    CallLost,
    HttpRunner,
    checked,
)

logger = logging.getLogger("bentoml.sentiment.runner")

# How long a host that opened no stream gets HTTP calls before it is asked again: it may have been
# replaced by one of a newer release.
REFUSED_SECONDS = 30.0
MAX_HANDSHAKE_BYTES = 65_536
# Of the questions that `watch` asks, a second apart, so many in a row stay without any answer.
DEAD_AFTER = 3
_HEAD_END = b"\r\n\r\n"


class StreamLost(aiohttp.ClientConnectionError):
    """There is no stream; another one may carry the call."""


class StreamRefused(Exception):
    """The host answered the wish for a stream with plain HTTP."""


class RunnerStream(asyncio.Protocol):
    """One open stream, or one that is being opened."""

    def __init__(self) -> None:
        """Must be called in a running event loop."""
        self._loop = asyncio.get_running_loop()
        # Done once the host has agreed, or not.
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self.opened.add_done_callback(_retrieve)
        self.takes_calls = False
        # The host answers what it has, and then hangs up; if it does not, this side does.
        self._is_ending = False
        self._head = b""
        self._frames = FrameReader(MAX_REPLY_BYTES)
        self._calls: dict[int, asyncio.Future[list[Classification]]] = {}
        self._numbers = itertools.count()
        self._transport: asyncio.Transport | None = None
        self._writer: FrameWriter
        # Whether the host answers what `watch` asks, and how often it was asked since it last
        # said anything.
        self._answers = False
        self._asked = 0
        self._question: int | None = None

    def watch(self) -> None:
        """Find out whether the stream leads anywhere; ends it if not.

        Called each time that the host has answered on another connection. A router or a proxy may
        have forgotten this one: then what is sent is lost, and nobody says so.
        """
        if self._asked >= DEAD_AFTER and self._answers:
            logger.warning("a stream to a runner that answers elsewhere is dead, and is ended")
            self.abort()
        else:
            self._asked += 1
            self._question = next(self._numbers)
            self._writer.send(wire.encode_streamed(wire.StreamCancel(self._question)))

    async def classify(
        self,
        texts: list[str],
        timeout_seconds: float,
        lane: Lane,
        long_text: LongText = "truncate",
    ) -> list[Classification]:
        """Classify `texts`; the i-th result belongs to the i-th text.

        Raises:
            StreamLost: the stream has ended.
            CallLost: the stream ended while the runner had the call.
            TimeoutError: no answer came in time.
            ServiceUnavailable: the runner is full.
            BentoMLException: any other refusal.
        """
        if not self.takes_calls:
            raise StreamLost("the stream has ended")
        number = next(self._numbers)
        parent = tracing.trace_parent(tracing.current()) or ""
        message = wire.StreamCall(number, texts, timeout_seconds, lane, parent, long_text)
        self._writer.send(wire.encode_streamed(message))
        answer = self._calls[number] = self._loop.create_future()
        try:
            async with asyncio.timeout(timeout_seconds):
                results: list[Classification] = await answer
        finally:
            if self._calls.pop(number, None) is not None and self._transport is not None:
                self._writer.send(wire.encode_streamed(wire.StreamCancel(number)))
            self._close_if_ended()
        return checked(results, texts, long_text)

    def abort(self) -> None:
        """End the stream and each call on it."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """End the stream once what was sent is out."""
        self.takes_calls = False
        if self._transport is not None:
            self._transport.close()

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._writer = FrameWriter(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport, self.takes_calls = None, False
        reason = "the runner hung up" if exc is None else type(exc).__name__
        if not self.opened.done():
            self.opened.set_exception(StreamLost(reason))
        if calls := self._take_calls():
            logger.warning("a stream to a runner is lost, with %d calls on it", len(calls))
        for call in calls:
            call.set_exception(CallLost(reason))

    def data_received(self, data: bytes) -> None:
        self._asked = 0
        if not self.takes_calls and not self.opened.done():
            data = self._read_head(data)
        try:
            for message in self._frames.feed(data):
                self._read(message)
        except (wire.WireError, FrameTooLarge) as error:
            # Which call it was for cannot be known, and what follows may be as unreadable.
            for call in self._take_calls():
                call.set_exception(BadReply(f"a reply on the stream: {error}"))
            self.abort()

    # messages

    def _read_head(self, data: bytes) -> bytes:
        """Read the answer to the wish for a stream; returns what follows it."""
        self._head += data
        head, end, rest = self._head.partition(_HEAD_END)
        if end and head.split(b" ", 2)[1:2] == [b"%d" % HTTPStatus.SWITCHING_PROTOCOLS]:
            self.takes_calls = True
            self.opened.set_result(None)
            return rest
        if end or len(self._head) > MAX_HANDSHAKE_BYTES:
            self.opened.set_exception(StreamRefused(head[:100].decode("latin-1")))
            self.abort()
        return b""

    def _read(self, message: bytes) -> None:
        """Take a message; one that cannot be read fails its own call, if it tells which that is."""
        try:
            reply = wire.decode_stream_reply(message)
        except wire.WireError as error:
            number = wire.number_of(message)
            if number is None:
                raise
            call = self._calls.pop(number, None)
            if call is not None and not call.done():
                call.set_exception(BadReply(f"a reply on the stream: {error}"))
        else:
            self._take(reply)
        self._close_if_ended()

    def _close_if_ended(self) -> None:
        if self._is_ending and not self._calls:
            self.close()

    def _take(self, reply: wire.StreamReply) -> None:
        if isinstance(reply, wire.StreamEnd):
            self.takes_calls, self._is_ending = False, True
            return
        self._answers |= reply.number == self._question
        call = self._calls.pop(reply.number, None)
        if call is None or call.done():
            return  # it was cancelled while the answer was on its way
        if isinstance(reply, wire.StreamResults):
            call.set_result(reply.results)
        else:
            is_full = reply.status == HTTPStatus.SERVICE_UNAVAILABLE
            error = ServiceUnavailable if is_full else BentoMLException
            call.set_exception(error(f"the reply is {reply.status}: {reply.detail}"))

    def _take_calls(self) -> list[asyncio.Future[list[Classification]]]:
        """The calls that wait for an answer; they are no longer this stream's."""
        calls = [call for call in self._calls.values() if not call.done()]
        self._calls.clear()
        return calls


class StreamRunner:
    """A runner host: texts over a stream where the host has one, all else over HTTP.

    Its errors are those of `HttpRunner`.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        """`url` and `key` are those of `HttpRunner`. Must be called in a running event loop."""
        self._http = HttpRunner(url, key)
        self._dial = _dialler(url, key)
        self._stream: RunnerStream | None = None
        self._opening: asyncio.Task[RunnerStream | None] | None = None
        self._refused_until = 0.0

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
        stream = self._stream
        if stream is None or not stream.takes_calls:
            deadline = time.monotonic() + timeout_seconds
            async with asyncio.timeout(timeout_seconds):
                stream = await self._open()
            timeout_seconds = deadline - time.monotonic()
        if stream is None:
            return await self._http.classify(texts, timeout_seconds, lane, long_text)
        return await stream.classify(texts, timeout_seconds, lane, long_text)

    async def describe(self) -> RunnerDescription:
        """Get the description of the host, and see to its stream.

        It is opened before the first call: while a service stops, the address of its runners is
        gone, and what is open goes on.
        """
        description = await self._http.describe()
        if self._stream is not None and self._stream.takes_calls:
            self._stream.watch()
        else:
            self._begin_opening()
        return description

    async def load(self, desired: DesiredModel) -> RunnerDescription:
        """Have the host begin to load another model."""
        return await self._http.load(desired)

    def hang_up(self) -> None:
        """End the stream, and each call on it; the next call opens another one."""
        if self._stream is not None:
            self._stream.abort()

    async def close(self) -> None:
        """Close all connections; calls in flight end with an error."""
        if self._opening is not None:
            self._opening.cancel()
        if self._stream is not None:
            self._stream.close()
        await self._http.close()

    async def _open(self) -> RunnerStream | None:
        """The stream; None if the host has none. All that need it wait for the same attempt."""
        opening = self._begin_opening()
        return None if opening is None else await asyncio.shield(opening)

    def _begin_opening(self) -> asyncio.Task[RunnerStream | None] | None:
        """The attempt that is under way, or a new one; None for a host that has no stream."""
        if time.monotonic() < self._refused_until:
            return None
        if self._opening is None:
            self._opening = asyncio.create_task(self._try_to_open())
            self._opening.add_done_callback(self._end_opening)
        return self._opening

    def _end_opening(self, opening: asyncio.Task[RunnerStream | None]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # each caller that still waits gets it

    async def _try_to_open(self) -> RunnerStream | None:
        stream = RunnerStream()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._dial(stream)
                await stream.opened
        except StreamRefused as error:
            logger.info("a runner host has no stream, and gets HTTP calls: %s", error)
            self._refused_until = time.monotonic() + REFUSED_SECONDS
            return None
        except OSError as error:
            stream.abort()
            raise StreamLost(f"no stream can be opened: {error}") from error
        except BaseException:
            stream.abort()
            raise
        self._stream = stream
        return stream


def _dialler(url: str, key: str | None) -> Callable[[RunnerStream], Awaitable[None]]:
    """A function that connects a stream to the host at `url`, and asks for the protocol."""
    parts = urlsplit(url)
    is_local = parts.scheme in ("unix", "file")
    lines = [
        f"GET {'' if is_local else parts.path.rstrip('/')}{wire.STREAM_PATH} HTTP/1.1",
        f"Host: {'runner' if is_local else parts.netloc.rpartition('@')[2]}",
        f"Upgrade: {wire.STREAM_PROTOCOL}",
        "Connection: Upgrade",
        *([f"{wire.KEY_HEADER}: {key}"] if key is not None else []),
    ]
    request = "\r\n".join([*lines, "", ""]).encode()

    async def dial(stream: RunnerStream) -> None:
        loop = asyncio.get_running_loop()
        if is_local:
            path = unquote(parts.path)
            try:
                transport, _ = await loop.create_unix_connection(lambda: stream, path)
            except FileNotFoundError as error:
                raise FileNotFoundError(
                    f"{path} is gone. If something emptied the folder of temporary files, restart "
                    "the service"
                ) from error
        else:
            is_tls = parts.scheme == "https"
            transport, _ = await loop.create_connection(
                lambda: stream,
                parts.hostname or "",
                parts.port or (443 if is_tls else 80),
                ssl=ssl.create_default_context() if is_tls else None,
            )
        transport.write(request)

    return dial


def _retrieve(opened: asyncio.Future[None]) -> None:
    """Take the error of an attempt that nobody waits for any more, so that it is not logged."""
    if not opened.cancelled():
        opened.exception()
