"""uvicorn's protocol with an end to waiting for headers, with our errors, and with a door.

uvicorn gives a connection any time, and any space, to send the headers of a request, so that a few
thousand idle sockets would take all that there are. It has no setting for either. And it ends an
idle connection after five seconds, which is sooner than load balancers and clients do: what they
send just then is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from uvicorn import config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from core import metrics
from core.errors import PROBLEM_CONTENT_TYPE, Problem
from web.body_guard import DRAIN_BYTES
from web.problems import problem_body
from web.request_id import new_request_id
from web.shedding import REFUSED, LoadShedder, shed_response

if TYPE_CHECKING:
    from starlette.types import Scope

MAX_HEADER_BYTES = 65_536


class BoundedHttpProtocol(HttpToolsProtocol):
    """Ends a connection whose request's headers are too slow (408) or too long (431).

    What the `door` refuses it answers as soon as the headers are there.
    """

    header_timeout_seconds = 10.0
    keep_alive_seconds = 75
    door: LoadShedder | None = None
    _waiting: asyncio.TimerHandle | None = None
    _header_bytes = 0
    _begun = False
    _between_requests = True
    # Answered before its body has come, which is thrown away.
    _refused = False
    _thrown_away_bytes = 0

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
        if self.transport.is_closing():
            return
        if self._between_requests:
            if self._refused and self._waiting is None:
                self._wait()
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
        self._unset_keepalive_if_required()

    def on_headers_complete(self) -> None:
        self._between_requests = True
        self._header_bytes = 0
        self._stop_waiting()
        if self._is_let_in():
            super().on_headers_complete()
        else:
            self._refuse()

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)
            return
        self._thrown_away_bytes += len(body)
        if self._thrown_away_bytes > DRAIN_BYTES:
            self.transport.close()

    def on_message_complete(self) -> None:
        if not self._refused:
            super().on_message_complete()
            return
        self._refused = False
        self._stop_waiting()
        self.on_response_complete()

    def send_400_response(self, msg: str) -> None:
        self._end(400, msg)

    def _is_let_in(self) -> bool:
        """What the door says, if it can be asked here: a refusal costs two thirds of what it does
        as a task of its own. What waits for an earlier answer, or for a client that does not read,
        is refused further in.
        """
        path = self.url.decode("latin-1")
        if (
            self.door is None
            or path not in self.door.paths
            or self.parser.get_method() != b"POST"
            or self.parser.should_upgrade()
            or self.flow.write_paused
            or not (self.cycle is None or self.cycle.response_complete)
        ):
            return True
        return self.door.admit(cast("Scope", self.scope))

    def _refuse(self) -> None:
        self._refused = True
        self._thrown_away_bytes = 0
        body, headers = shed_response(cast("Scope", self.scope), self.url.decode())
        # Who asks first whether to send the body is not going to send it.
        keep = self.parser.should_keep_alive() and not self.expect_100_continue
        self._answer(REFUSED, body, headers, keep=keep)

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
        id_ = new_request_id()
        body = problem_body(Problem(status, detail), "", id_)
        self._answer(status, body, {"x-request-id": id_}, keep=False)

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str], *, keep: bool) -> None:
        """With a problem; the connection ends with it unless it is to `keep`."""
        if self.transport.is_closing():  # what came after the last request
            return
        head = [
            f"content-type: {PROBLEM_CONTENT_TYPE}\r\ncontent-length: {len(body)}\r\n",
            *(f"{name}: {value}\r\n" for name, value in headers.items()),
            "\r\n" if keep else "connection: close\r\n\r\n",
        ]
        self.transport.write(STATUS_LINE[status] + "".join(head).encode() + body)
        if not keep:
            self.transport.close()


def use_bounded_protocol(
    *, header_timeout_seconds: float, keep_alive_seconds: int, door: LoadShedder | None = None
) -> None:
    """Have every server of this process that starts from now on speak it."""
    BoundedHttpProtocol.header_timeout_seconds = header_timeout_seconds
    BoundedHttpProtocol.keep_alive_seconds = keep_alive_seconds
    BoundedHttpProtocol.door = door
    protocols: dict[Any, Any] = config.HTTP_PROTOCOLS
    protocols["auto"] = f"{__name__}:{BoundedHttpProtocol.__name__}"
