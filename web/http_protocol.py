"""uvicorn's protocol with an end to waiting for headers, and with our errors.

uvicorn gives a connection any time, and any space, to send the headers of a request, so that a few
thousand idle sockets would take all that there are. It has no setting for either. And it ends an
idle connection after five seconds, which is sooner than load balancers and clients do: what they
send just then is lost.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn import config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

import metrics
from errors import PROBLEM_CONTENT_TYPE, Problem
from web.problems import problem_body
from web.request_id import new_request_id

MAX_HEADER_BYTES = 65_536


class BoundedHttpProtocol(HttpToolsProtocol):
    """Ends a connection whose request's headers are too slow (408) or too long (431)."""

    header_timeout_seconds = 10.0
    keep_alive_seconds = 75
    _waiting: asyncio.TimerHandle | None = None
    _header_bytes = 0
    _begun = False
    _between_requests = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.timeout_keep_alive = self.keep_alive_seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._begun = False
        super().data_received(data)
        if self._between_requests or self.transport.is_closing():
            return
        if not self._begun:  # or else most of it may be of what came before
            self._header_bytes += len(data)
        if self._header_bytes > MAX_HEADER_BYTES:
            self._end(431, f"The headers of a request may have at most {MAX_HEADER_BYTES:,} bytes")
        elif self._waiting is None:
            self._wait()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begun = True
        self._between_requests = False

    def on_headers_complete(self) -> None:
        self._between_requests = True
        self._header_bytes = 0
        self._stop_waiting()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._end(400, msg)

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(self.header_timeout_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._waiting = None
        if self._between_requests:  # nothing came at all
            self.transport.close()
        else:
            metrics.timed_out_requests.labels("headers").inc()
            self._end(
                408, f"The headers took longer than {self.header_timeout_seconds:g} s to come"
            )

    def _end(self, status: int, detail: str) -> None:
        if not self.transport.is_closing():
            id_ = new_request_id()
            body = problem_body(Problem(status, detail), "", id_)
            head = (
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
                f"content-type: {PROBLEM_CONTENT_TYPE}\r\ncontent-length: {len(body)}\r\n"
                f"x-request-id: {id_}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
            self.transport.close()


def use_bounded_protocol(*, header_timeout_seconds: float, keep_alive_seconds: int) -> None:
    """Have every server of this process that starts from now on speak it."""
    BoundedHttpProtocol.header_timeout_seconds = header_timeout_seconds
    BoundedHttpProtocol.keep_alive_seconds = keep_alive_seconds
    protocols: dict[Any, Any] = config.HTTP_PROTOCOLS
    protocols["auto"] = f"{__name__}:{BoundedHttpProtocol.__name__}"
