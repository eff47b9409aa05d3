"""uvicorn's HTTP protocol, bounded in bytes and time in every state of a connection.

uvicorn gives a connection any time and any space for the headers of a request, for the trailers of
its body, for a body that nobody reads, for requests that wait for the one before them, and for an
answer that the client does not take. It answers no client that has closed its sending side, and
loses the body of a request that asks for an upgrade. It has no setting for any of this.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from socket import AF_UNIX
from typing import Any

import httptools
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl

from core import metrics
from core.errors import Problem
from core.request_context import new_request_id
from serving.answering import AnsweringConnection
from serving.parser_turns import ParserTurns
from serving.request_head import RefusedHead, check_head, split_absolute, with_host
from web.body import DRAIN_BYTES
from web.problems import problem_body
from web.routes import UNKNOWN

MAX_HEADER_BYTES = 65_536
_HEADERS_TOO_LONG = f"The headers of a request may have at most {MAX_HEADER_BYTES:,} bytes"
# A parser takes up to a millisecond for a kilobyte of a query.
MAX_TARGET_BYTES = 16_384
# Each takes some microseconds, in every layer that looks for one of them.
MAX_HEADERS = 100
# The parser gets so much at a time. It cannot stop within, and the shortest request has 18 bytes.
PIECE_BYTES = 4_096
# Chunks, headers and trailers of a piece that take no turns: a line of 50 bytes may be a chunk.
FREE_PARTS = 100
_UPGRADE_TOKENS = frozenset({b"upgrade", b"http2-settings"})


class _Reading(Enum):
    """What the next bytes of a client belong to."""

    FIRST = "the connection's first request"
    HEADERS = "headers"
    BODY = "a body, its chunks and its trailers"
    NEXT = "another request"


class _Flow(FlowControl):
    """Reads nothing while a request or bytes wait: what follows them waits with the client."""

    def __init__(self, transport: asyncio.Transport, protocol: BoundedConnection) -> None:
        super().__init__(transport)
        self._protocol = protocol

    def resume_reading(self) -> None:
        if not self._protocol.waits():
            super().resume_reading()


class BoundedConnection(AnsweringConnection):
    """Ends a connection that is too slow, sends too much, or does not take its answers.

    Headers that are too slow get a 408, a target that is too long a 414, and headers, trailers or
    chunks without content that are too long a 431. Without an answer a connection ends if it sends
    nothing, stops within a body, goes on with a refused one, or takes no byte of an answer.
    """

    header_timeout_seconds = 10.0
    keep_alive_seconds = 75
    # More would take the files that the log needs. The latest one is closed.
    max_connections = 65_536
    # Of tiny parts, of bodies, and of bodies that are refused: a flood of one delays no other.
    parser_turns = ParserTurns()
    body_turns = ParserTurns()
    refused_turns = ParserTurns()

    _reading = _Reading.FIRST
    _timer: asyncio.TimerHandle | None = None
    # Received while a request waits for the one before it, or bytes wait for their turn.
    _held = b""
    # Of the piece that is being parsed.
    _parts = 0
    _turn: asyncio.TimerHandle | None = None
    # The lines of the request's headers, those included that nothing reads.
    _header_bytes = 0
    # Since the last request, header block or content of a body.
    _bytes_without_progress = 0
    _progress = False
    _stalled = False
    # Of a body whose answer is out.
    _unwanted_bytes = 0
    _upgrades = False
    _half_closed = False
    # Why the parser was ended.
    _refused_head: RefusedHead | None = None
    # The answer to what cannot be read, after the requests before it.
    _last_answer: tuple[int, str] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Of the body, since the server took it last.
        self._chunks: list[bytes] = []
        self.timeout_keep_alive = self.keep_alive_seconds
        if isinstance(self.app, ProxyHeadersMiddleware):
            self.app = self.app.app  # web/forwarded finds the client instead

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self)
        self._start_timer()
        if len(self.connections) > self.max_connections or self._is_reset():
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._turn is not None:
            self._turn.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._held:
            self._held += data  # what was read before reading stopped
        elif self._last_answer is None:
            self._parse(data)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection for the answers to what came whole."""
        whole = self._reading is _Reading.NEXT or bool(self._held)
        if not whole or not self._is_answering() or self._peer_has_left():
            return False
        self._half_closed = True
        if self.scope["http_version"] == "1.1" and not self._held and not self.pipeline:
            self._probe(first=True)
        return True

    def _is_reset(self) -> bool:
        """Whether the client has reset the connection before it was accepted.

        The system does not tell its address any more, so that limits and an Idempotency-Key would
        take its request for somebody else's. Nobody can be answered.
        """
        return self.client is None and self.transport.get_extra_info("socket").family != AF_UNIX

    # the parser's callbacks

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._progress = True
        self._reading = _Reading.HEADERS
        self._header_bytes = 0
        self._stop_timer()
        self._unset_keepalive_if_required()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_TARGET_BYTES:
            self._refused_head = RefusedHead(
                414, f"The target of a request may have at most {MAX_TARGET_BYTES:,} bytes"
            )
            raise self._refused_head

    def on_header(self, name: bytes, value: bytes) -> None:
        self._parts += 1
        if self._reading is not _Reading.HEADERS:
            return  # a trailer; the service reads none
        self._header_bytes += len(name) + len(value) + 4  # and a colon, a blank, a line's end
        if self._header_bytes > MAX_HEADER_BYTES:
            self._refused_head = RefusedHead(431, _HEADERS_TOO_LONG)
            raise self._refused_head
        if name.lower() == b"cookie":
            return  # nothing here reads one, but the framework takes them all apart
        if len(self.headers) == MAX_HEADERS:
            self._refused_head = RefusedHead(
                431, f"A request may have at most {MAX_HEADERS} headers"
            )
            raise self._refused_head
        # The parser leaves the blanks behind a value, which are no part of it (RFC 9110, 5.5).
        super().on_header(name, value.rstrip(b" \t"))
        if name.lower() == b"transfer-encoding" and value.strip().lower() != b"chunked":
            # Beside chunks the parser undoes no coding.
            self._refused_head = RefusedHead(
                501, "A body may have the Transfer-Encoding chunked, and no other"
            )

    def on_headers_complete(self) -> None:
        self._check_head()  # what it raises ends the parser
        self._progress = True
        self._stop_timer()
        self._reading = _Reading.BODY
        self._unwanted_bytes = 0
        if self.parser.should_upgrade():
            self._upgrades = True  # `_parse_without_upgrade` goes on
        else:
            self._begin_request()

    def _check_head(self) -> None:
        if self._refused_head is not None:
            raise self._refused_head
        try:
            check_head(self.parser.get_http_version(), self.url, self.headers)
            absolute = split_absolute(self.url)
        except RefusedHead as refused:
            self._refused_head = refused
            raise
        if absolute is not None:
            authority, self.url = absolute
            self.headers[:] = with_host(self.headers, authority)

    def _begin_request(self) -> None:
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        # A client may send thousands of chunks of a byte each, and each call of the server costs.
        self._count_part()
        self._chunks.append(body)

    def _count_part(self) -> None:
        self._progress = True
        self._parts += 1

    def _pass_body_on(self) -> None:
        if self._chunks:
            body = b"".join(self._chunks)
            self._chunks.clear()
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._pass_body_on()
        if not self._upgrades:
            self._end_message()
            super().on_message_complete()

    def _end_message(self) -> None:
        self._progress = True
        self._stop_timer()
        self._reading = _Reading.NEXT

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_sending()
        if self.transport.is_closing():
            return
        if self._last_answer is not None:
            self._end(*self._last_answer)
            return
        if self._reading is _Reading.HEADERS:  # the connection is not idle
            self._unset_keepalive_if_required()
        if not self.waits():
            self._go_on()
        if self._half_closed and not self._is_answering():
            self.transport.close()
        elif self._drops_body():
            if self.expect_100_continue:  # the client will not send the body
                self.transport.close()
            else:
                self._start_timer()

    def send_400_response(self, msg: str) -> None:
        self._end(400, msg)

    def _should_upgrade(self) -> bool:
        return False  # the service has no WebSockets

    # bytes

    def waits(self) -> bool:
        """Whether what comes has to wait: for an earlier request, or for its turn."""
        return bool(self.pipeline) or self._turn is not None

    def _drops_body(self) -> bool:
        """Whether what comes is of a body whose request is answered: nobody reads it."""
        return self._reading is _Reading.BODY and self._is_answered()

    def _go_on(self) -> None:
        # After an answer, what came of a body before it is read by nobody.
        is_read = self.cycle is None or len(self.cycle.body) <= HIGH_WATER_LIMIT
        if is_read or self._is_answered():
            self.flow.resume_reading()
        held, self._held = self._held, b""
        if held:
            self._parse(held)

    def _take_turn(self) -> None:
        self._turn = None
        if not self.waits() and not self.transport.is_closing():
            self._go_on()

    def _parse(self, data: bytes) -> None:
        parsed_bytes = 0
        while parsed_bytes < len(data):
            if self.transport.is_closing() or self._last_answer is not None:
                return
            if self.waits():
                self._held = data[parsed_bytes:]
                self.flow.pause_reading()
                break
            self._parse_piece(data[parsed_bytes : parsed_bytes + PIECE_BYTES])
            parsed_bytes += PIECE_BYTES
        if parsed_bytes > PIECE_BYTES:
            turns = self.refused_turns if self._drops_body() else self.body_turns
            self._wait(turns.wait_seconds(self.loop.time(), body_bytes=parsed_bytes))

    def _parse_piece(self, piece: bytes) -> None:
        self._progress = False
        self._parts = 0
        try:
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                self._parse_without_upgrade(piece[upgrade.args[0] :])
        except httptools.HttpParserError:
            if self._refused_head is not None:
                self._end(self._refused_head.status, str(self._refused_head))
            else:
                self.send_400_response("Invalid HTTP request received.")
        self._pass_body_on()
        if not self.transport.is_closing() and self._last_answer is None:
            self._count(len(piece))
            if self._parts > FREE_PARTS:
                self._wait(self.parser_turns.wait_seconds(self.loop.time(), parts=self._parts))

    def _wait(self, wait_seconds: float) -> None:
        """Read and parse nothing more of this connection for so long."""
        if wait_seconds > 0 and self._turn is None and not self.transport.is_closing():
            self._turn = self.loop.call_later(wait_seconds, self._take_turn)
            self.flow.pause_reading()

    def _parse_without_upgrade(self, rest: bytes) -> None:
        """Parse a request again, without its wish for another protocol, and what follows it.

        The parser takes what follows such headers for the other protocol, as if there were no body.
        A server may ignore the wish (RFC 9110, 7.8).
        """
        self._upgrades = False
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._reading = _Reading.HEADERS  # it has not begun
            self._end(405, "This service is no proxy")
            return
        lines = [method + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [token.strip() for token in value.split(b",")]
                kept = [token for token in tokens if token.lower() not in _UPGRADE_TOKENS]
                lines.append(b"connection: " + b", ".join(kept))
            elif name not in _UPGRADE_TOKENS:
                lines.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(b"\r\n".join(lines) + b"\r\n\r\n")
        if rest and not self.transport.is_closing():
            self._parse_piece(rest)

    def _count(self, length: int) -> None:
        self._stalled = False
        self._bytes_without_progress += length
        if self._progress:
            self._bytes_without_progress = 0
        is_unwanted = self._reading is not _Reading.HEADERS and self._is_answered()
        if self._drops_body():
            self._unwanted_bytes += length
        too_long = self._bytes_without_progress > MAX_HEADER_BYTES
        if is_unwanted and (too_long or self._unwanted_bytes > DRAIN_BYTES):
            self.transport.close()
        elif too_long and self._reading is not _Reading.NEXT:
            self._end(431, _HEADERS_TOO_LONG)
        elif self._timer is None and self._reading is not _Reading.NEXT:
            self._start_timer()

    # time

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(self.header_timeout_seconds, self._time_out)

    def _stop_timer(self) -> None:
        self._stalled = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        self._timer = None
        waits = self.flow.read_paused  # it is not the client who is slow
        if self._reading is _Reading.FIRST or self._drops_body():
            self.transport.close()
        elif self._reading is _Reading.HEADERS and not waits:
            metrics.timed_out_requests.labels("headers").inc()
            self._end(
                408, f"The headers took longer than {self.header_timeout_seconds:g} s to come"
            )
        elif self._stalled and not waits:
            # Who reads a body refuses it before this (web/body); nobody reads this one.
            self.transport.close()
        else:
            self._start_timer()
            self._stalled = not waits

    def can_leave(self) -> bool:
        """Whether the request that is being answered is the last thing that came."""
        is_last = self._reading is _Reading.NEXT and not self.waits() and not self._held
        return is_last and not self.transport.is_closing()

    def leave(self) -> None:
        """Let another protocol have the connection, in place of the answer."""
        self.cycle.response_started = self.cycle.response_complete = True
        self._stop_timer()
        self._unset_keepalive_if_required()
        self.connections.discard(self)

    # answers

    def _is_answering(self) -> bool:
        """Whether a request that came waits for its answer."""
        return bool(self.pipeline or self._held) or not (
            self.cycle is None or self.cycle.response_complete
        )

    def _end(self, status: int, detail: str) -> None:
        """Answer with a problem, after the requests before it; close the connection."""
        if self._reading is _Reading.BODY:
            if self.pipeline or self.cycle.response_started:
                self.transport.close()
                return
        elif self._is_answering():
            self._last_answer = status, detail
            self._reading = _Reading.NEXT
            self._stop_timer()
            return
        elif not self.transport.is_closing():
            # No middleware sees it. A request whose body is at fault has been counted.
            metrics.http_requests.labels(UNKNOWN.path, str(status)).inc()
        id_ = new_request_id()
        body = problem_body(Problem(status, detail), "", id_)
        self._answer(status, body, {"x-request-id": id_}, keep=False)
