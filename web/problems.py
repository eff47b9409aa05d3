"""The one place where errors become responses: RFC 9457 problems, the framework's own included."""

from __future__ import annotations

import orjson
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import PROBLEM_CONTENT_TYPE, Problem, ServiceError, status_title
from web.asgi_io import send_response
from web.request_id import request_id
from web.routes import ALLOWED_METHODS, REPORT_ROUTE

# Where a request's scope has the error that it ended with, for who looks at it afterwards.
ERROR = "sentiment.error"
# Headers of a framework's error response that still say something true beside our body.
_KEPT_HEADERS = ("allow", "retry-after", "www-authenticate")


class ProblemMiddleware:
    """Makes a problem of every error: of what is raised, and of the framework's own responses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, send)
        try:
            await self._app(scope, receive, answer.send)
        except ServiceError as error:
            scope[ERROR] = error
            if answer.started:
                raise
            # Its frames hold this scope, which holds it: only a full garbage collection would find
            # such a ring, and with those of a flood that took 100 ms, in which no request moved.
            error.__traceback__ = None
            await answer.send_problem(error.problem())
        except Exception as error:  # the edge of the service: nothing else would answer the client
            scope[ERROR] = error
            if answer.started:
                raise
            await answer.send_problem(_framework_problem(500, scope, Headers()))


class _Answer:
    """Passes a response on, or holds a framework's error response back and sends a problem."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._held: Message | None = None
        self.started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self._is_replaced(message):
            self._held = message
        elif self._held is None:
            self.started = True
            await self._send(message)
        elif not message.get("more_body", False):
            headers = Headers(raw=self._held["headers"])
            await self.send_problem(_framework_problem(self._held["status"], self._scope, headers))

    def _is_replaced(self, start: Message) -> bool:
        if start["status"] < 400 or (start["status"], self._scope["path"]) == (503, REPORT_ROUTE):
            return False
        return Headers(raw=start["headers"]).get("content-type") != PROBLEM_CONTENT_TYPE

    async def send_problem(self, problem: Problem) -> None:
        self.started = True
        body = problem_body(problem, self._scope["path"], request_id(self._scope))
        await send_response(self._send, problem.status, body, PROBLEM_CONTENT_TYPE, problem.headers)


def problem_body(problem: Problem, path: str, request_id: str) -> bytes:
    """The JSON of a problem with the request for `path`."""
    return orjson.dumps(problem.document(path, request_id))


def _framework_problem(status: int, scope: Scope, headers: Headers) -> Problem:
    """The problem for an error that the framework found: no such route, wrong method, a crash."""
    kept = {name: headers[name] for name in _KEPT_HEADERS if name in headers}
    if status == 405 and scope["path"] in ALLOWED_METHODS:
        kept["allow"] = ALLOWED_METHODS[scope["path"]]
    match status:
        case 404:
            detail = "There is nothing here; /docs lists the endpoints"
        case 405:
            allowed = kept.get("allow", "another method")
            detail = f"{scope['method']} is not allowed here; allowed: {allowed}"
        case 503:
            detail = "The service cannot answer now; try again"
            kept.setdefault("retry-after", "1")
        case _ if status >= 500:
            detail = "An unexpected error; it has been logged"
        case _:
            detail = status_title(status)
    return Problem(status, detail, headers=kept)
