"""Bodies that are no JSON or too large are refused before anything parses them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import orjson
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from core.errors import BodyTooLarge, BodyTooSlow
from tests.unit.fakes import counter
from web.body_guard import DRAIN_BYTES, BodyGuard
from web.problems import ProblemMiddleware

WAIT_SECONDS = 10.0
JSON = {"Content-Type": "application/json"}


def guarded(limit: int) -> httpx.AsyncClient:
    """A client of a guarded app that answers with the size of the body."""

    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        await Response(orjson.dumps(len(body)))(scope, receive, send)

    transport = httpx.ASGITransport(ProblemMiddleware(BodyGuard(echo, limit, WAIT_SECONDS)))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size):
        yield b"a"


@pytest.mark.parametrize(("size", "status"), [(0, 200), (10, 200), (11, 413), (5_000, 413)])
async def test_bodies_up_to_the_limit_pass(size: int, status: int) -> None:
    async with guarded(10) as http:
        told = await http.post("/predict", content=b"a" * size, headers=JSON)
        untold = await http.post("/predict", content=chunks(size), headers=JSON)
    assert (told.status_code, untold.status_code) == (status, status)
    if status == 413:
        assert told.json()["detail"] == untold.json()["detail"]
        assert told.json()["detail"] == "A request body may have at most 10 bytes"
        assert told.headers["connection"] == untold.headers["connection"] == "close"
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
        ("application/jsonp", 415),
        ("application/vnd.bentoml+pickle", 415),
    ],
)
async def test_only_json_passes(media_type: str | None, status: int) -> None:
    headers = {} if media_type is None else {"Content-Type": media_type}
    async with guarded(10) as http:
        reply = await http.post("/predict", content=b"{}", headers=headers)
        # Routes that take no JSON are not this guard's business.
        assert (await http.post("/other", content=b"{}", headers=headers)).status_code == 200
    assert reply.status_code == status
    if status == 415:
        assert reply.headers["accept-post"] == "application/json"


class Body:
    """An ASGI body of these messages, then a disconnect; counts how often it was asked."""

    def __init__(self, *messages: Message) -> None:
        self.messages = list(messages)
        self.asked = 0

    async def receive(self) -> Message:
        self.asked += 1
        return self.messages.pop(0) if self.messages else {"type": "http.disconnect"}


def part(size: int, *, more: bool) -> Message:
    return {"type": "http.request", "body": b"a" * size, "more_body": more}


async def guard(
    body: Body,
    headers: list[tuple[bytes, bytes]] | None = None,
    seconds: float = WAIT_SECONDS,
) -> list[Message]:
    """Run an app that reads all it gets behind a guard of 10 bytes; what it got comes back."""
    got: list[Message] = []

    async def read(_scope: Scope, receive: Receive, _send: Send) -> None:
        while not got or got[-1].get("more_body", False):
            got.append(await receive())

    async def send(_: Message) -> None:
        raise AssertionError

    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers or []}
    await BodyGuard(read, 10, seconds)(scope, body.receive, send)
    return got


async def test_a_client_that_leaves_is_seen_by_the_app() -> None:
    body = Body(part(4, more=True))
    assert [message["type"] for message in await guard(body)] == ["http.request", "http.disconnect"]


async def test_a_body_announced_too_large_is_read_to_its_end() -> None:
    body = Body(part(6, more=True), part(6, more=False), part(1, more=False))
    with pytest.raises(BodyTooLarge):
        await guard(body, [(b"content-length", b"12")])
    assert body.asked == 2


async def test_a_body_that_grows_too_large_is_read_to_its_end() -> None:
    body = Body(part(6, more=True), part(6, more=True), part(6, more=False), part(1, more=False))
    with pytest.raises(BodyTooLarge):
        await guard(body)
    assert body.asked == 3


async def test_a_client_that_leaves_while_refused_is_not_waited_for() -> None:
    body = Body(part(6, more=True))
    with pytest.raises(BodyTooLarge):
        await guard(body, [(b"content-length", b"12")])
    assert body.asked == 2


async def test_an_endless_body_is_not_read_for_ever() -> None:
    body = Body(*[part(DRAIN_BYTES // 4, more=True)] * 100)
    with pytest.raises(BodyTooLarge):
        await guard(body, [(b"content-length", b"99999999999")])
    assert body.asked == 4


class SlowBody(Body):
    """A body whose client stops sending after its messages, and stays."""

    async def receive(self) -> Message:
        if not self.messages:
            await asyncio.Event().wait()
        return await super().receive()


async def test_a_client_that_stops_sending_is_not_waited_for() -> None:
    before = counter("timed_out_requests_total", reason="body")
    with pytest.raises(BodyTooSlow, match=r"longer than 0\.05 s"):
        await guard(SlowBody(part(4, more=True)), seconds=0.05)
    assert counter("timed_out_requests_total", reason="body") - before == 1


async def test_nor_is_one_that_is_refused() -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        with pytest.raises(BodyTooLarge):
            await guard(SlowBody(part(6, more=True)), [(b"content-length", b"12")], seconds=0.05)


async def test_who_waits_for_the_answer_may_take_longer() -> None:
    """After the body, what is received is that the client leaves, whenever that is."""
    body = SlowBody(part(4, more=False))

    async def read(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await receive()

    async def send(_: Message) -> None:
        raise AssertionError

    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": []}
    await BodyGuard(read, 10, 0.05)(scope, body.receive, send)
