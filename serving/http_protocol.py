"""uvicorn's HTTP protocol with bounded headers, our errors, and load shedding.

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
from core.request_context import new_request_id
from web.body import DRAIN_BYTES
from web.problems import problem_body
from web.shedding import SHED_STATUS, LoadShedder, shed_response

if TYPE_CHECKING:
    from starlette.types import Scope

MAX_HEADER_BYTES = 65_536


class BoundedHttpProtocol(HttpToolsProtocol):
    """Ends a connection whose request's headers are too slow (408) or too long (431).

    It answers a request that the `shedder` refuses as soon as its headers are there.
    """

    header_timeout_seconds = 10.0
    keep_alive_seconds = 75
    shedder: LoadShedder | None = None
    _waiting: asyncio.TimerHandle | None = None
    _header_bytes = 0
    _begun = False
    _between_requests = True
    # Answered before its body has come, which is thrown away.
    _refused = False
    _dropped_bytes = 0

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
        if not self._begun:  # otherwise most of it may belong to the request before
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
        if self._is_admitted():
            super().on_headers_complete()
        else:
            self._refuse()

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)
            return
        self._dropped_bytes += len(body)
        if self._dropped_bytes > DRAIN_BYTES:
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

    def _is_admitted(self) -> bool:
        """Ask the shedder where that can be done: a refusal here costs two thirds of one in a task.

        A request that waits for an earlier answer, or whose client does not read, is decided in
        `LoadSheddingMiddleware`.
        """
        path = self.url.decode("latin-1")
        if (
            self.shedder is None
            or path not in self.shedder.paths
            or self.parser.get_method() != b"POST"
            or self.parser.should_upgrade()
            or self.flow.write_paused
            or not (self.cycle is None or self.cycle.response_complete)
        ):
            return True
        return self.shedder.admit(cast("Scope", self.scope))

    def _refuse(self) -> None:
        self._refused = True
        self._dropped_bytes = 0
        body, headers = shed_response(cast("Scope", self.scope), self.url.decode())
        # A client that asks first whether to send the body will not send it.
        keep = self.parser.should_keep_alive() and not self.expect_100_continue
        self._answer(SHED_STATUS, body, headers, keep=keep)

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(self.header_timeout_seconds, self._time_out)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _time_out(self) -> None:
        self._waiting = None
        if self._between_requests:  # nothing arrived at all
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
        """Answer with a problem, and close the connection unless `keep`."""
        if self.transport.is_closing():  # bytes after the last request
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
    *, header_timeout_seconds: float, keep_alive_seconds: int, shedder: LoadShedder | None = None
) -> None:
    """Make every server that this process starts from now on speak this protocol."""
    BoundedHttpProtocol.header_timeout_seconds = header_timeout_seconds
    BoundedHttpProtocol.keep_alive_seconds = keep_alive_seconds
    BoundedHttpProtocol.shedder = shedder
    protocols: dict[Any, Any] = config.HTTP_PROTOCOLS
    protocols["auto"] = f"{__name__}:{BoundedHttpProtocol.__name__}"
