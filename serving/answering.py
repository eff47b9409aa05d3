"""The sending half of a connection: answers without an app, and clients that do not take theirs."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Mapping
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from core.errors import PROBLEM_CONTENT_TYPE
from web.response_headers import CorsHeaders

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
FIRST_PROBE_SECONDS = 0.01
MAX_PROBE_SECONDS = 1.0


class Answer(RequestResponseCycle):
    """Drops what is for a client that has left."""

    async def send(self, message: ASGISendEvent) -> None:
        try:
            await super().send(message)
        except RuntimeError as error:
            # uvloop closes its socket at a failed write, and raises at the next one before it says
            # that the connection is lost: for every request that such a client has sent ahead.
            if "handler is closed" not in str(error):
                raise
            self.disconnected = True


class AnsweringConnection(HttpToolsProtocol):
    """Ends a connection whose client takes no byte of an answer, or has left."""

    send_timeout_seconds = 30.0
    cors = CorsHeaders()

    _send_timer: asyncio.TimerHandle | None = None
    _unsent_bytes = 0

    def connection_lost(self, exc: Exception | None) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_sending()

    def _is_answered(self) -> bool:
        """Whether the answer to the newest request is out."""
        return self.cycle is not None and self.cycle.response_complete

    def _answer(
        self,
        status: int,
        body: bytes,
        headers: Mapping[str, str],
        *,
        keep: bool,
        content_type: str = PROBLEM_CONTENT_TYPE,
    ) -> None:
        """Answer with a problem, and close the connection unless `keep`."""
        if self.transport.is_closing():  # bytes after the last request
            return
        headers = {**headers, **self.cors.of(self.headers or ())}
        head = [
            f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n",
            *(f"{name}: {value}\r\n" for name, value in headers.items()),
            "\r\n" if keep else "connection: close\r\n\r\n",
        ]
        self.transport.write(STATUS_LINE[status] + "".join(head).encode() + body)
        if not keep:
            self.transport.close()
        self._watch_sending()

    def _watch_sending(self) -> None:
        """End the connection if the client takes nothing of an answer for too long."""
        unsent_bytes = self.transport.get_write_buffer_size()
        if unsent_bytes and self._send_timer is None:
            self._unsent_bytes = unsent_bytes
            self._send_timer = self.loop.call_later(self.send_timeout_seconds, self._check_sending)

    def _check_sending(self) -> None:
        self._send_timer = None
        if self.transport.get_write_buffer_size() >= self._unsent_bytes:
            self.transport.abort()
        else:
            self._watch_sending()

    def _probe(self, delay_seconds: float = FIRST_PROBE_SECONDS, *, first: bool = False) -> None:
        """Cancel the request if the client has not only closed its sending side, but left.

        TCP shows no difference until something is sent: only then the system of a client that has
        left refuses it. Every client has to accept an interim answer (RFC 9110, 15.2).
        """
        if self.transport.is_closing() or self.cycle.response_started:
            return
        if first:
            self.transport.write(CONTINUE)
        elif self._peer_has_left():
            self.transport.abort()
            return
        self.loop.call_later(delay_seconds, self._probe, min(2 * delay_seconds, MAX_PROBE_SECONDS))

    def _peer_has_left(self) -> bool:
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), 0)
        return bool(poll.poll(0))  # hung up, or an error: these two are always reported
