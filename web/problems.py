"""Turns every error into an RFC 9457 problem, the framework's own errors included."""

from __future__ import annotations

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.asgi import JSON_CONTENT_TYPE, send_response
from core.errors import PROBLEM_CONTENT_TYPE, ModelNotFound, Problem, ServiceError, status_title
from core.request_context import context_of
from web.routes import (
    ERROR_TEXT_PREFIXES,
    JSON_ERROR_PREFIX,
    MODELS_FOLDER,
    REPORT_PATH,
    allowed_methods,
)

# Headers of a framework's error response that stay true beside our body.
_KEPT_HEADERS = ("allow", "content-range", "retry-after", "www-authenticate")


class ProblemMiddleware:
    """Renders raised errors, and replaces the framework's own error responses, by problems."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = context_of(scope)
        held: Message | None = None  # the start of a framework's error response
        started = False
        complete = False

        async def send_problem(problem: Problem) -> None:
            body = problem_body(problem, scope["path"], context.id)
            content_type = problem_content_type(scope["path"])
            await send_response(send, problem.status, body, content_type, problem.headers)

        async def replace_or_send(message: Message) -> None:
            nonlocal held, started, complete
            if message["type"] == "http.response.start" and _is_replaced(scope, message):
                held = message
            elif held is None:
                started = True
                _name_problem(scope, message)
                await send(message)
            elif not message.get("more_body", False):
                started = True
                headers = Headers(raw=held["headers"])
                await send_problem(_framework_problem(held["status"], scope, headers))
            is_body = message["type"] == "http.response.body"
            complete = complete or (is_body and not message.get("more_body", False))

        try:
            await self._app(scope, receive, replace_or_send)
        except Exception as error:  # the edge of the service: nothing else would answer the client
            context.error = error
            if complete:
                # Starlette raises what it has answered. The server would close the connection,
                # which the answer did not say.
                return
            if started:
                raise
            if not isinstance(error, ServiceError):
                await send_problem(_framework_problem(500, scope, Headers()))
                return
            # Its frames hold this scope, which holds the error. Only a full garbage collection
            # finds such a ring; after a flood that took 100 ms, in which no request moved.
            _forget_frames(error)
            await send_problem(error.problem())


def _forget_frames(error: BaseException | None) -> None:
    """Let go of what was in hand when an error and its causes were raised, such as a body.

    A connection that waits for its next request keeps the scope of the last one.
    """
    while error is not None:
        error.__traceback__ = error.__context__ = None
        error = error.__cause__


def _is_replaced(scope: Scope, start: Message) -> bool:
    """Whether a response is an error of the framework."""
    if start["status"] < 400 or (start["status"], scope["path"]) == (503, REPORT_PATH):
        return False
    return Headers(raw=start["headers"]).get("content-type") != PROBLEM_CONTENT_TYPE


def problem_content_type(path: str) -> str:
    """The Content-Type of a problem with a request for `path`."""
    return JSON_CONTENT_TYPE if path.startswith(JSON_ERROR_PREFIX) else PROBLEM_CONTENT_TYPE


def _name_problem(scope: Scope, message: Message) -> None:
    """Give a problem that the application rendered the Content-Type of its path."""
    if message["type"] == "http.response.start" and message["status"] >= 400:
        headers = MutableHeaders(scope=message)
        if headers.get("content-type") == PROBLEM_CONTENT_TYPE:
            headers["content-type"] = problem_content_type(scope["path"])


def problem_body(problem: Problem, path: str, request_id: str) -> bytes:
    """The JSON of a problem with a request for `path`."""
    document = problem.document(path, request_id)
    if path.startswith(ERROR_TEXT_PREFIXES):
        # An extension member, as RFC 9457 allows: the shape stays one.
        document["error"] = problem.detail
    return orjson.dumps(document)


def _framework_problem(status: int, scope: Scope, headers: Headers) -> Problem:
    """The problem of a framework error: no such route, wrong method, a crash."""
    kept = {name: headers[name] for name in _KEPT_HEADERS if name in headers}
    # BentoML knows of the POST of a path alone, and FastAPI of no HEAD; neither knows the POSTs of
    # other systems' protocols.
    if status in (404, 405) and (allowed := allowed_methods(scope["path"])):
        if scope["method"] not in allowed.split(", "):
            status = 405
        if status == 405:
            kept["allow"] = allowed
    match status:
        case 400 if scope["method"] in ("GET", "HEAD") and "range" in Headers(scope=scope):
            detail = "Range names bytes, as bytes=0-99, bytes=100- or bytes=-100"
        case 404 if scope["path"].startswith(MODELS_FOLDER):
            return ModelNotFound().problem()
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
