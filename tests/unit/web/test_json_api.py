"""POST APIs are parsed, called within their deadline and rendered, in front of the framework."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import orjson
import pytest
from pydantic import BaseModel
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from core.errors import MalformedRequest, RunnerUnavailable
from core.types import Version
from tests.unit.fakes import counter
from web.asgi_io import read_body
from web.json_api import JsonApi, JsonApiMiddleware
from web.problems import ProblemMiddleware
from web.schemas.predictions import PredictRequest


class Reply(BaseModel):
    said: str


async def echo(text: str, version: Version | None) -> Reply:
    return Reply(said=f"{text} {version}")


async def unavailable(text: str, version: Version | None) -> Reply:
    raise RunnerUnavailable("the runner is down")


async def broken(text: str, version: Version | None) -> Reply:
    raise ZeroDivisionError("hunter2")


class Endless:
    """Answers nothing, and knows when it was stopped."""

    def __init__(self) -> None:
        self.stopped = False

    async def __call__(self, **_fields: object) -> Reply:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.stopped = True
            raise
        return Reply(said="late")


async def framework(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("the framework")(scope, receive, send)


ENDLESS = Endless()
CALLS: dict[str, Callable[..., Awaitable[Reply]]] = {
    "/predict": echo,
    "/feedback": echo,
    "/unavailable": unavailable,
    "/broken": broken,
    "/endless": ENDLESS,
}
APIS = {
    route: JsonApi(
        route,
        name=route[1:],
        summary="",
        request=PredictRequest,
        reply=Reply,
        call=call,
        success_status=202 if route == "/feedback" else 200,
    )
    for route, call in CALLS.items()
}


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    app = ProblemMiddleware(JsonApiMiddleware(framework, lambda: APIS, timeout_seconds=0.05))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as client:
        yield client


async def test_fields_go_in_by_name_and_the_reply_comes_out_as_json(
    http: httpx.AsyncClient,
) -> None:
    reply = await http.post("/predict", json={"text": " good ", "version": "v2"})
    assert (reply.status_code, reply.json()) == (200, {"said": "good v2"})
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["content-length"] == str(len(reply.content))
    reply = await http.post("/feedback", json={"text": "good"})
    assert (reply.status_code, reply.json()) == (202, {"said": "good None"})


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 422, "text: Field required"),
        (b"{", 400, "not valid JSON"),
        (b"[1]", 422, "should be an object"),
        (b'{"text": "good", "extra": 1}', 422, "extra"),
        (b'{"text": "good", "version": "v9"}', 422, "version"),
    ],
)
async def test_a_body_that_breaks_a_rule_never_reaches_the_api(
    http: httpx.AsyncClient, body: bytes, status: int, says: str
) -> None:
    # An API that would crash, if it were called.
    reply = await http.post("/broken", content=body)
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/problem+json"
    assert says in reply.json()["detail"]


async def test_an_error_of_ours_is_told(http: httpx.AsyncClient) -> None:
    reply = await http.post("/unavailable", json={"text": "good"})
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert reply.json()["detail"] == "the runner is down"


async def test_a_bug_tells_nothing(http: httpx.AsyncClient) -> None:
    reply = await http.post("/broken", json={"text": "good"})
    assert reply.status_code == 500
    assert "hunter2" not in reply.text


async def test_past_its_deadline_an_api_is_stopped(http: httpx.AsyncClient) -> None:
    before = counter("timed_out_requests_total", reason="deadline")
    reply = await http.post("/endless", json={"text": "good"})
    assert reply.status_code == 504
    assert reply.json()["detail"] == "The answer took longer than 0.05 s"
    assert counter("timed_out_requests_total", reason="deadline") - before == 1
    assert ENDLESS.stopped


async def test_a_client_may_ask_for_less_time_and_not_for_more(http: httpx.AsyncClient) -> None:
    for asked, told in (("1", "0.001"), ("0020", "0.02"), ("999999999", "0.05")):
        headers = {"X-Request-Timeout-Ms": asked}
        reply = await http.post("/endless", json={"text": "good"}, headers=headers)
        assert reply.status_code == 504
        assert reply.json()["detail"] == f"The answer took longer than {told} s"


@pytest.mark.parametrize("asked", ["", "0", "-1", "1.5", "1e3", "soon", "9" * 5_000])
async def test_a_time_that_is_none_is_refused(http: httpx.AsyncClient, asked: str) -> None:
    headers = {"X-Request-Timeout-Ms": asked}
    reply = await http.post("/predict", json={"text": "good"}, headers=headers)
    assert reply.status_code == 400
    assert "X-Request-Timeout-Ms is a whole number of milliseconds" in reply.json()["detail"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/predict"), ("POST", "/else")])
async def test_all_else_is_the_frameworks(http: httpx.AsyncClient, method: str, path: str) -> None:
    assert (await http.request(method, path)).text == "the framework"


async def test_what_is_not_http_is_the_frameworks() -> None:
    seen: list[str] = []

    async def lifespan(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    async def never() -> Message:
        raise AssertionError

    async def send(_: Message) -> None:
        raise AssertionError

    await JsonApiMiddleware(lifespan, lambda: APIS, 1)({"type": "lifespan"}, never, send)
    assert seen == ["lifespan"]


async def test_a_body_in_parts_is_put_together_and_half_a_one_is_refused() -> None:
    def receiving(*messages: Message) -> Receive:
        left = list(messages)

        async def receive() -> Message:
            return left.pop(0)

        return receive

    first: Message = {"type": "http.request", "body": b'{"te', "more_body": True}
    second: Message = {"type": "http.request", "body": orjson.dumps("xt")[1:]}
    assert await read_body(receiving(first, second)) == b'{"text"'
    with pytest.raises(MalformedRequest, match="ended before"):
        await read_body(receiving(first, {"type": "http.disconnect"}))
