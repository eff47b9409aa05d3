"""Turns every error into an RFC 9457 problem, the framework's own errors included."""

from __future__ import annotations

import orjson
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.asgi import send_response
from core.errors import PROBLEM_CONTENT_TYPE, Problem, ServiceError, status_title
from core.request_context import RequestContext, context_of
from web.routes import REPORT_PATH, allowed_methods

# Headers of a framework's error response that stay true beside our body.
_KEPT_HEADERS = ("allow", "retry-after", "www-authenticate")


class ProblemMiddleware:
    """Renders raised errors, and replaces the framework's own error responses, by problems."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = context_of(scope)
        answer = _Answer(scope, context, send)
        try:
            await self._app(scope, receive, answer.send)
        except ServiceError as error:
            context.error = error
            if answer.started:
                raise
            # Its frames hold this scope, which holds the error. Only a full garbage collection
            # finds such a ring; after a flood that took 100 ms, in which no request moved.
            error.__traceback__ = None
            await answer.send_problem(error.problem())
        except Exception as error:  # the edge of the service: nothing else would answer the client
            context.error = error
            if answer.started:
                raise
            await answer.send_problem(_framework_problem(500, scope, Headers()))


class _Answer:
    """Passes a response on, or holds a framework's error response back and sends a problem."""

    def __init__(self, scope: Scope, context: RequestContext, send: Send) -> None:
        self._scope = scope
        self._context = context
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
        if start["status"] < 400 or (start["status"], self._scope["path"]) == (503, REPORT_PATH):
            return False
        return Headers(raw=start["headers"]).get("content-type") != PROBLEM_CONTENT_TYPE

    async def send_problem(self, problem: Problem) -> None:
        self.started = True
        body = problem_body(problem, self._scope["path"], self._context.id)
        await send_response(self._send, problem.status, body, PROBLEM_CONTENT_TYPE, problem.headers)


def problem_body(problem: Problem, path: str, request_id: str) -> bytes:
    """The JSON of a problem with a request for `path`."""
    return orjson.dumps(problem.document(path, request_id))


def _framework_problem(status: int, scope: Scope, headers: Headers) -> Problem:
    """The problem of a framework error: no such route, wrong method, a crash."""
    kept = {name: headers[name] for name in _KEPT_HEADERS if name in headers}
    # BentoML knows of the POST of a path alone.
    if status == 405 and (allowed := allowed_methods(scope["path"])):
        kept["allow"] = allowed
    match status:
        case 404:
            detail = "There is nothing here; /docs lists the endpoints"
        case 405:
            methods = kept.get("allow", "another method")
            detail = f"{scope['method']} is not allowed here; allowed: {methods}"
        case 503:
            detail = "The service cannot answer now; try again"
            kept.setdefault("retry-after", "1")
        case _ if status >= 500:
            detail = "An unexpected error; it has been logged"
        case _:
            detail = status_title(status)
    return Problem(status, detail, headers=kept)
