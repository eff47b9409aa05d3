"""Errors become problems, whoever raised them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from errors import (
    DatabaseUnavailable,
    DeadlineExceeded,
    InvalidRequest,
    PredictionNotFound,
    Problem,
    RateLimited,
    ServiceError,
    leave_problem,
)
from web.body_guard import BodyGuard
from web.problems import ProblemMiddleware, answering
from web.routes import endpoint_label, limit_name

Endpoint = Callable[[Request], Awaitable[Response]]


def client(
    endpoint: Endpoint, path: str = "/x", methods: tuple[str, ...] = ("GET",)
) -> httpx.AsyncClient:
    app = ProblemMiddleware(Starlette(routes=[Route(path, endpoint, methods=list(methods))]))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def test_what_was_left_is_told_in_place_of_the_framework() -> None:
    async def endpoint(_: Request) -> Response:
        leave_problem(Problem(422, "text: too short", headers={"X-Kept": "1"}))
        return PlainTextResponse("framework's own words", 400)

    reply = await client(endpoint).get("/x")
    assert reply.status_code == 422
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["x-kept"] == "1"
    assert reply.json() == {
        "type": "about:blank",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "text: too short",
        "instance": "/x",
    }


async def test_unknown_path_and_method_are_problems() -> None:
    async def endpoint(_: Request) -> Response:
        return PlainTextResponse("ok")

    async with client(endpoint) as http:
        missing, wrong, fine = [
            await http.get("/y"), await http.put("/x"), await http.get("/x")
        ]  # fmt: skip
    assert (missing.status_code, missing.json()["status"]) == (404, 404)
    assert wrong.status_code == 405
    assert "GET" in wrong.headers["allow"]
    assert "GET" in wrong.json()["detail"]
    assert (fine.status_code, fine.text) == (200, "ok")


async def test_a_crash_is_a_500_that_tells_nothing() -> None:
    async def endpoint(_: Request) -> Response:
        raise RuntimeError("the password is hunter2")

    reply = await client(endpoint).get("/x")
    assert reply.status_code == 500
    assert "hunter2" not in reply.text
    assert reply.json()["title"] == "Internal Server Error"


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (PredictionNotFound("no"), 404, None),
        (InvalidRequest("no"), 422, None),
        (RateLimited("no", retry_after_seconds=7), 429, "7"),
        (DatabaseUnavailable("no"), 503, "1"),
        (DeadlineExceeded("no"), 504, "1"),
    ],
)
async def test_our_errors_have_their_status(
    error: ServiceError, status: int, retry_after: str | None
) -> None:
    async def refuse(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise error

    transport = httpx.ASGITransport(ProblemMiddleware(refuse))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        reply = await http.get("/x")
    assert (reply.status_code, reply.json()["detail"]) == (status, "no")
    assert reply.headers.get("retry-after") == retry_after


async def test_success_passes_untouched_even_in_pieces() -> None:
    async def endpoint(_: Request) -> Response:
        return StreamingResponse(iter([b"a", b"b"]), 202, {"X-Own": "1"})

    reply = await client(endpoint).get("/x")
    assert (reply.status_code, reply.text, reply.headers["x-own"]) == (202, "ab", "1")


async def test_health_keeps_its_own_503_but_no_other_path_does() -> None:
    async def endpoint(_: Request) -> Response:
        return PlainTextResponse("report", 503)

    assert (await client(endpoint, "/health").get("/health")).text == "report"
    other = await client(endpoint).get("/x")
    assert other.json()["status"] == 503
    assert other.headers["retry-after"] == "1"


async def test_an_api_past_its_deadline_answers_504() -> None:
    never = asyncio.Event()

    @answering(0.01)
    async def slow() -> str:
        await never.wait()
        return "late"

    async def endpoint(_: Request) -> Response:
        answer = await slow()
        assert isinstance(answer, Response)
        return answer

    assert (await client(endpoint).get("/x")).json()["status"] == 504


def test_a_problem_outside_a_request_is_a_mistake() -> None:
    with pytest.raises(LookupError):
        leave_problem(Problem(400, "nobody listens"))


def guarded(limit: int) -> httpx.AsyncClient:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        await Response(orjson.dumps(len(body)))(scope, receive, send)

    transport = httpx.ASGITransport(ProblemMiddleware(BodyGuard(echo, limit)))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size):
        yield b"a"


@pytest.mark.parametrize(("size", "status"), [(0, 200), (10, 200), (11, 413), (5_000, 413)])
async def test_bodies_up_to_the_limit_pass(size: int, status: int) -> None:
    headers = {"Content-Type": "application/json"}
    async with guarded(10) as http:
        told = await http.post("/predict", content=b"a" * size, headers=headers)
        untold = await http.post("/predict", content=chunks(size), headers=headers)
    assert (told.status_code, untold.status_code) == (status, status)
    if status == 413:
        assert told.json() == untold.json()
        assert told.json()["detail"] == "A request body may have at most 10 bytes"
    else:
        assert told.json() == untold.json() == size


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        (None, 200),
        ("", 415),
        ("text/plain", 415),
        ("application/vnd.bentoml+pickle", 415),
    ],
)
async def test_only_json_passes(media_type: str | None, status: int) -> None:
    headers = {} if media_type is None else {"Content-Type": media_type}
    async with guarded(10) as http:
        assert (await http.post("/predict", content=b"{}", headers=headers)).status_code == status
        # Routes that take no JSON are not this guard's business.
        assert (await http.post("/other", content=b"{}", headers=headers)).status_code == 200


def test_metric_labels_are_a_closed_set() -> None:
    assert endpoint_label("/predict") == "/predict"
    assert endpoint_label("/predict/") == endpoint_label("/../etc/passwd") == "other"


def test_limits_follow_route_and_method() -> None:
    assert limit_name("POST", "/predict/batch") == "batch"
    assert limit_name("POST", "/feedback") == "predict"
    assert limit_name("GET", "/analytics/recent") == "analytics"
    assert limit_name("GET", "/predict") is None
    assert limit_name("GET", "/health") is None
