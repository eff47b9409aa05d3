"""The one place where errors become responses: RFC 9457 problems, the framework's own included."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

import orjson
from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from errors import (
    PROBLEM_CONTENT_TYPE,
    DeadlineExceeded,
    Problem,
    ServiceError,
    collecting_problems,
    leave_problem,
    status_title,
)
from web.routes import REPORT_ROUTE

logger = logging.getLogger("bentoml.sentiment.http")

P = ParamSpec("P")
T = TypeVar("T")

# Headers of a framework's error response that still say something true beside our body.
_KEPT_HEADERS = ("allow", "retry-after", "www-authenticate")


def answering(
    timeout_seconds: float,
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T | Response]]]:
    """Make a Bento API method answer our errors as problems, within a deadline (504)."""

    def decorate(method: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T | Response]]:
        @functools.wraps(method)
        async def answer(*args: P.args, **kwargs: P.kwargs) -> T | Response:
            try:
                async with asyncio.timeout(timeout_seconds):
                    return await method(*args, **kwargs)
            except ServiceError as error:
                problem = error.problem()
            except TimeoutError:
                problem = DeadlineExceeded(
                    f"The answer took longer than {timeout_seconds:g} s"
                ).problem()
            leave_problem(problem)
            return Response(status_code=problem.status)

        return answer

    return decorate


class ProblemMiddleware:
    """Replaces the body of every error response by a problem; no exception gets past it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with collecting_problems() as left:
            answer = _Answer(scope, send, left)
            try:
                await self._app(scope, receive, answer.send)
            except ServiceError as error:
                await answer.send_problem(error.problem())
            except Exception:  # the edge of the service: nothing else would answer the client
                logger.exception("%s %s failed", scope["method"], scope["path"])
                if answer.started:
                    raise
                await answer.send_problem(_framework_problem(500, scope, Headers()))


class _Answer:
    """Passes a response on, or holds an error response back and sends a problem instead."""

    def __init__(self, scope: Scope, send: Send, left: list[Problem]) -> None:
        self._scope = scope
        self._send = send
        self._left = left
        self._held: Message | None = None
        self.started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self._is_replaced(message["status"]):
            self._held = message
        elif self._held is None:
            self.started = True
            await self._send(message)
        elif not message.get("more_body", False):
            headers = Headers(raw=self._held["headers"])
            await self.send_problem(
                self._left[-1]
                if self._left
                else _framework_problem(self._held["status"], self._scope, headers)
            )

    def _is_replaced(self, status: int) -> bool:
        return status >= 400 and (status, self._scope["path"]) != (503, REPORT_ROUTE)

    async def send_problem(self, problem: Problem) -> None:
        body = orjson.dumps(problem.document(self._scope["path"]))
        headers = {"content-type": PROBLEM_CONTENT_TYPE, **problem.headers}
        self.started = True
        await Response(body, problem.status, headers)(self._scope, _no_receive, self._send)


async def _no_receive() -> Message:
    raise RuntimeError("a rendered problem reads no request")


def _framework_problem(status: int, scope: Scope, headers: Headers) -> Problem:
    """The problem for an error that the framework found: no such route, wrong method, a crash."""
    kept = {name: headers[name] for name in _KEPT_HEADERS if name in headers}
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


class ClientErrorFilter(logging.Filter):
    """Keeps the framework from logging a traceback for each request that is at fault itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        error: Any = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, (ServiceError, ValidationError))
