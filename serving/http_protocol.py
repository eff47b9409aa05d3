"""The HTTP protocol of the service: bounded connections, load shedding, and request targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from uvicorn import config
from uvicorn.protocols.http import httptools_impl

from core.asgi import UPGRADE_EXTENSION
from serving.answering import Answer
from serving.connection import BoundedConnection
from serving.switching import Switch
from web.problems import problem_content_type
from web.response_headers import CorsHeaders
from web.shedding import SHED_STATUS, LoadShedder, shed_response
from web.targets import LISTED, RequestTargets

if TYPE_CHECKING:
    from starlette.types import Scope


class BoundedHttpProtocol(BoundedConnection):
    """Answers a request that the `shedder` refuses as soon as its headers are there.

    The app, its metrics and the shedder see the path inside the service, as `targets` finds it.
    """

    shedder: LoadShedder | None = None
    targets = RequestTargets()
    # Answered before its body has come, which is thrown away.
    _refused = False
    _wanted_protocol = ""

    def _parse_without_upgrade(self, rest: bytes) -> None:
        wanted = [value for name, value in self.headers if name == b"upgrade"]
        self._wanted_protocol = wanted[0].decode("latin-1") if len(wanted) == 1 else ""
        super()._parse_without_upgrade(rest)

    def _begin_request(self) -> None:
        if self._wanted_protocol:
            switch = Switch(self, self._wanted_protocol)
            self.scope["extensions"] = {UPGRADE_EXTENSION: cast("Any", switch)}
            self._wanted_protocol = ""
        if self.url not in LISTED:
            if self.targets.is_prefix(self.url):
                self._begin_redirect()
                return
            self.url = self.targets.inner(self.url)
        if self._is_admitted():
            super()._begin_request()
        else:
            self._refuse()

    def _begin_redirect(self) -> None:
        app, self.app = self.app, cast("Any", self.targets.redirect)
        super()._begin_request()
        self.app = app

    def on_body(self, body: bytes) -> None:
        if self._refused:
            self._count_part()
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._refused:
            super().on_message_complete()
            return
        self._refused = False
        self._end_message()
        self.on_response_complete()

    def _is_answered(self) -> bool:
        return self._refused or super()._is_answered()

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
            or self.flow.write_paused
            or self._is_answering()
        ):
            return True
        return self.shedder.admit(cast("Scope", self.scope))

    def _refuse(self) -> None:
        self._refused = True
        path = self.url.decode()
        body, headers = shed_response(cast("Scope", self.scope), path)
        # A client that asks first whether to send the body will not send it.
        keep = self.parser.should_keep_alive() and not self.expect_100_continue
        self._answer(SHED_STATUS, body, headers, keep=keep, content_type=problem_content_type(path))


def use_bounded_protocol(
    *,
    header_timeout_seconds: float,
    keep_alive_seconds: int,
    max_connections: int,
    shedder: LoadShedder | None = None,
    path_prefix: str = "",
    cors_origins: tuple[str, ...] = (),
) -> None:
    """Make every server that this process starts from now on speak this protocol."""
    BoundedHttpProtocol.header_timeout_seconds = header_timeout_seconds
    BoundedHttpProtocol.keep_alive_seconds = keep_alive_seconds
    BoundedHttpProtocol.max_connections = max_connections
    BoundedHttpProtocol.shedder = shedder
    BoundedHttpProtocol.cors = CorsHeaders(cors_origins)
    BoundedHttpProtocol.targets = RequestTargets(path_prefix)
    httptools_impl.RequestResponseCycle = Answer  # type: ignore[misc]
    protocols: dict[Any, Any] = config.HTTP_PROTOCOLS
    protocols["auto"] = f"{__name__}:{BoundedHttpProtocol.__name__}"
