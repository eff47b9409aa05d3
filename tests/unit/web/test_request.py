"""Every request is counted, timed and logged once; every answer carries the request's id."""

from __future__ import annotations

import re

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import (
    DeadlineExceeded,
    Overloaded,
    PredictionNotFound,
    RunnerUnavailable,
    ServiceError,
    Unauthorized,
)
from core.request_context import caller, context_of, current
from tests.unit.fakes import counter
from web.problems import ProblemMiddleware
from web.request import RequestMiddleware


def answering_with(*statuses: int) -> ASGIApp:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        for status in statuses:
            await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body", "body": b"y"})

    return app


async def leaving(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """An app whose client left before the answer."""


async def crashing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise RuntimeError("no")


async def request(
    app: ASGIApp, path: str, kind: str = "http", method: str = "POST"
) -> list[Message]:
    return await request_through(RequestMiddleware(app), path, kind, method)


async def request_through(
    middleware: RequestMiddleware, path: str, kind: str = "http", method: str = "POST"
) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": kind, "method": method, "path": path, "headers": []}
    await middleware(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    ("app", "path", "endpoint", "status"),
    [
        (answering_with(200), "/predict", "/predict", "200"),
        (answering_with(422), "/predict/batch", "/predict/batch", "422"),
        (answering_with(404), "/wp-login.php", "other", "404"),
        (leaving, "/predict", "/predict", "499"),
    ],
)
async def test_request_is_counted_once_under_its_route_and_status(
    app: ASGIApp, path: str, endpoint: str, status: str
) -> None:
    counted = counter("http_requests_total", endpoint=endpoint, status=status)
    timed = counter("http_request_duration_seconds_count", endpoint=endpoint)
    await request(app, path)
    assert counter("http_requests_total", endpoint=endpoint, status=status) - counted == 1
    assert counter("http_request_duration_seconds_count", endpoint=endpoint) - timed == 1


async def test_answer_passes_with_its_body_untouched() -> None:
    start, *body = await request(answering_with(200), "/predict")
    assert (start["type"], start["status"]) == ("http.response.start", 200)
    assert body == [
        {"type": "http.response.body", "body": b"x", "more_body": True},
        {"type": "http.response.body", "body": b"y"},
    ]


async def test_crash_is_counted_and_goes_on() -> None:
    counted = counter("http_requests_total", endpoint="/predict", status="499")
    with pytest.raises(RuntimeError):
        await request(crashing, "/predict")
    assert counter("http_requests_total", endpoint="/predict", status="499") - counted == 1


async def test_other_than_http_is_not_counted() -> None:
    before = counter("http_request_duration_seconds_count", endpoint="/predict")
    await request(leaving, "/predict", kind="lifespan")
    assert counter("http_request_duration_seconds_count", endpoint="/predict") == before


def failing_with(status: int, error: Exception | None) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if error is not None:
            context_of(scope).error = error
        await answering_with(status)(scope, receive, send)

    return app


async def test_deadline_of_the_clients_own_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        context_of(scope).has_own_deadline = True
        await failing_with(504, DeadlineExceeded("no"))(scope, receive, send)

    caplog.set_level("DEBUG", "bentoml.sentiment.request")
    await request(app, "/predict")
    assert [line.levelname for line in caplog.records] == ["DEBUG"]


@pytest.mark.parametrize(
    ("status", "error", "level"),
    [
        (200, None, "DEBUG"),
        (404, PredictionNotFound("no"), "DEBUG"),
        (503, Overloaded("no"), "DEBUG"),
        (503, RunnerUnavailable("no"), "WARNING"),
        (504, DeadlineExceeded("no"), "WARNING"),
        (500, ValueError("no"), "ERROR"),
    ],
)
async def test_request_is_one_log_line_at_the_level_that_it_matters(
    caplog: pytest.LogCaptureFixture, status: int, error: Exception | None, level: str
) -> None:
    caplog.set_level("DEBUG", "bentoml.sentiment.request")
    await request(failing_with(status, error), "/secret/path")
    await request(answering_with(503), "/readyz")
    probe = caplog.records.pop()
    assert probe.levelname == "DEBUG"
    [line] = caplog.records
    assert line.levelname == level
    assert line.message.startswith(f"POST other {status} in ")
    assert vars(line)["endpoint"] == "other"
    # Where it was raised matters only if the code did not foresee it.
    assert (line.exc_info or (None, None))[1] is (error if status == 500 else None)
    # What a request is refused for may be words of its text; the reply says it.
    is_told = isinstance(error, ServiceError) and status >= 500
    assert line.message.endswith(": no") is is_told
    assert line.message.endswith(": PredictionNotFound") is (status == 404)
    assert "secret" not in caplog.text
    # An unaudited request is logged without its caller.
    assert "caller" not in vars(line)


def calling(status: int, error: Exception | None, name: str) -> ASGIApp:
    """An app that finds out its caller on the way."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        context_of(scope).caller = name
        await failing_with(status, error)(scope, receive, send)

    return app


@pytest.mark.parametrize("path", ["/admin/rollout", "/admin/models/reload"])
@pytest.mark.parametrize(
    ("status", "error", "level"),
    [
        (200, None, "INFO"),
        (401, Unauthorized("no"), "INFO"),
        (422, None, "INFO"),
        (503, RunnerUnavailable("no"), "WARNING"),
        (500, ValueError("no"), "ERROR"),
    ],
)
async def test_audited_request_is_logged_with_its_caller(
    caplog: pytest.LogCaptureFixture,
    path: str,
    status: int,
    error: Exception | None,
    level: str,
) -> None:
    caplog.set_level("INFO", "bentoml.sentiment.request")
    await request(calling(status, error, "key ops"), path)
    [line] = caplog.records
    assert line.levelname == level
    assert vars(line)["caller"] == "key ops"
    assert (vars(line)["endpoint"], vars(line)["status"]) == (path, status)
    assert line.message.startswith(f"POST {path} {status} in ")
    reason = ": no" if isinstance(error, ServiceError) else ""
    assert line.message.endswith(f" ms for key ops{reason}")


async def test_refused_audited_requests_are_told_once_a_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "bentoml.sentiment.request")
    status = 401

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await calling(status, None, "192.0.2.7")(scope, receive, send)

    middleware = RequestMiddleware(app)
    for _ in range(50):
        await request_through(middleware, "/admin/rollout")
    assert [vars(line)["caller"] for line in caplog.records] == ["192.0.2.7"]
    status = 200
    for _ in range(3):
        await request_through(middleware, "/admin/rollout")
    assert [vars(line)["status"] for line in caplog.records] == [401, 200, 200, 200]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/rollout"),
        ("GET", "/admin/rollout/history"),
        ("POST", "/predict"),
        ("POST", "/feedback"),
        ("GET", "/analytics/recent"),
    ],
)
async def test_other_requests_are_not_logged_at_info(
    caplog: pytest.LogCaptureFixture, method: str, path: str
) -> None:
    caplog.set_level("INFO", "bentoml.sentiment.request")
    await request(calling(200, None, "key ops"), path, method=method)
    assert caplog.records == []


async def test_log_line_has_a_method_of_a_closed_set(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "bentoml.sentiment.request")
    await request(answering_with(405), "/predict", method="FORGED")
    [line] = caplog.records
    assert vars(line)["method"] == "other"
    assert "FORGED" not in caplog.text


async def test_context_is_current_in_the_request_and_its_caller_known() -> None:
    seen: list[tuple[bool, str]] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        context_of(scope).caller = "key shop"
        seen.append((current() is context_of(scope), caller()))

    await request(app, "/predict")
    assert seen == [(True, "key shop")]


async def test_answers_and_problems_carry_the_id_of_the_request() -> None:
    fine = RequestMiddleware(PlainTextResponse("ok"))
    bad = RequestMiddleware(ProblemMiddleware(PlainTextResponse("no", 400)))
    ids = set()
    for app in (fine, bad):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            reply = await http.get("/x")
        ids.add(reply.headers["x-request-id"])
    assert len(ids) == 2
    assert reply.json()["request_id"] == reply.headers["x-request-id"]
    assert all(re.fullmatch("[0-9a-f-]{36}", id_) for id_ in ids)
