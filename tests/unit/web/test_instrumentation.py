"""Every request is counted and timed once, under its route and status."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import (
    DeadlineExceeded,
    Overloaded,
    PredictionNotFound,
    RunnerUnavailable,
    ServiceError,
)
from web.instrumentation import InstrumentationMiddleware
from web.problems import ERROR


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


async def request(app: ASGIApp, path: str, kind: str = "http") -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": kind, "method": "POST", "path": path, "headers": []}
    await InstrumentationMiddleware(app)(scope, receive, send)
    return sent


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize(
    ("app", "path", "endpoint", "status"),
    [
        (answering_with(200), "/predict", "/predict", "200"),
        (answering_with(422), "/predict/batch", "/predict/batch", "422"),
        (answering_with(404), "/wp-login.php", "other", "404"),
        (leaving, "/predict", "/predict", "499"),
    ],
)
async def test_a_request_is_counted_once_under_its_route_and_status(
    app: ASGIApp, path: str, endpoint: str, status: str
) -> None:
    counted = value("http_requests_total", endpoint=endpoint, status=status)
    timed = value("http_request_duration_seconds_count", endpoint=endpoint)
    await request(app, path)
    assert value("http_requests_total", endpoint=endpoint, status=status) - counted == 1
    assert value("http_request_duration_seconds_count", endpoint=endpoint) - timed == 1


async def test_the_answer_passes_untouched() -> None:
    sent = await request(answering_with(200), "/predict")
    assert [message["type"] for message in sent] == [
        "http.response.start",
        "http.response.body",
        "http.response.body",
    ]


async def test_a_crash_is_counted_and_goes_on() -> None:
    counted = value("http_requests_total", endpoint="/predict", status="499")
    with pytest.raises(RuntimeError):
        await request(crashing, "/predict")
    assert value("http_requests_total", endpoint="/predict", status="499") - counted == 1


async def test_what_is_no_request_is_not_counted() -> None:
    before = value("http_request_duration_seconds_count", endpoint="/predict")
    await request(leaving, "/predict", kind="lifespan")
    assert value("http_request_duration_seconds_count", endpoint="/predict") == before


def failing_with(status: int, error: Exception | None) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if error is not None:
            scope[ERROR] = error
        await answering_with(status)(scope, receive, send)

    return app


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
async def test_a_request_is_one_line_as_loud_as_it_matters(
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
    # Where it was raised matters only where nobody foresaw it.
    assert (line.exc_info or (None, None))[1] is (error if status == 500 else None)
    assert line.message.endswith(": no") is isinstance(error, ServiceError)
    assert "secret" not in caplog.text
