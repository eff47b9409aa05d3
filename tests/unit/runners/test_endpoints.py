"""The endpoints of a runner answer messages of the wire, nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from bentoml.exceptions import InvalidArgument, ServiceUnavailable
from starlette.responses import PlainTextResponse
from starlette.types import Message

from core.asgi import WATCHED_AFTER_SECONDS
from runners import wire
from runners.endpoints import Answer, Answers, RunnerEndpoints
from tests.unit.runners.streams import FakeQueue

MAX_BODY_BYTES = 1_000
OURS = {"Content-Type": wire.CONTENT_TYPE}
PICKLE = "application/vnd.bentoml+pickle"


def answers(answer: Answer) -> Answers:
    return Answers({"/classify": answer}, FakeQueue, lambda: True)


class Calls:
    """Answers with the body that it gets, or fails."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.error: Exception | None = None

    async def answer(self, body: bytes) -> bytes:
        if self.error is not None:
            raise self.error
        self.bodies.append(body)
        return body

    def answers(self) -> Answers:
        return answers(self.answer)


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
async def client(calls: Calls) -> AsyncIterator[httpx.AsyncClient]:
    app = RunnerEndpoints(PlainTextResponse("BentoML"), calls.answers, MAX_BODY_BYTES)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://runner") as client:
        yield client


async def test_call_is_answered_with_a_message(client: httpx.AsyncClient, calls: Calls) -> None:
    reply = await client.post("/classify", content=b"body", headers=OURS)
    assert (reply.status_code, reply.content) == (200, b"body")
    assert reply.headers["content-type"] == wire.CONTENT_TYPE
    assert reply.headers["content-length"] == "4"
    assert calls.bodies == [b"body"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_runner_without_a_model_is_alive_and_not_ready(method: str) -> None:
    has_model = False
    app = RunnerEndpoints(
        PlainTextResponse("BentoML"),
        lambda: Answers({}, FakeQueue, lambda: has_model),
        MAX_BODY_BYTES,
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://runner") as client:
        assert (await client.request(method, "/readyz")).status_code == 503
        assert (await client.request(method, "/livez")).status_code == 200
        has_model = True
        assert (await client.request(method, "/readyz")).status_code == 200


@pytest.mark.parametrize("path", ["/classify", "/describe", "/", "/metrics", "/no/such/path"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"])
@pytest.mark.parametrize(
    "content_type",
    [
        PICKLE,
        PICKLE.upper(),
        "application/json",
        "application/octet-stream",
        f"{wire.CONTENT_TYPE}; charset={PICKLE}",
        "",
        None,
    ],
)
async def test_other_content_type_is_refused_unread(
    path: str, method: str, content_type: str | None, calls: Calls
) -> None:
    async def receive() -> Message:
        raise AssertionError("the body was read")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [] if content_type is None else [(b"content-type", content_type.encode())]
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    app = RunnerEndpoints(PlainTextResponse("BentoML"), calls.answers, MAX_BODY_BYTES)
    await app(scope, receive, send)
    assert sent[0]["status"] == 415
    assert wire.CONTENT_TYPE.encode() in sent[1]["body"]


@pytest.mark.parametrize("path", ["/classify", "/describe"])
async def test_second_content_type_is_refused(
    client: httpx.AsyncClient, calls: Calls, path: str
) -> None:
    both = [("Content-Type", wire.CONTENT_TYPE), ("Content-Type", PICKLE)]
    for headers in (both, both[::-1]):
        reply = await client.post(path, content=b"body", headers=headers)
        assert reply.status_code == 415
    assert calls.bodies == []


async def test_only_gets_reach_bentoml(client: httpx.AsyncClient) -> None:
    assert (await client.get("/readyz")).text == "BentoML"
    assert (await client.get("/classify")).text == "BentoML"
    # Starlette would take the second for /classify.
    for path in ("/other", "/classify%0A", "/readyz"):
        assert (await client.post(path, headers=OURS)).status_code == 404
    assert (await client.put("/classify", headers=OURS)).status_code == 405


@pytest.mark.parametrize(("size", "status"), [(MAX_BODY_BYTES, 200), (MAX_BODY_BYTES + 1, 413)])
async def test_body_is_bounded_announced_or_not(
    client: httpx.AsyncClient, size: int, status: int
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(size):
            yield b"a"

    announced = await client.post("/classify", content=b"a" * size, headers=OURS)
    chunked = await client.post("/classify", content=chunks(), headers=OURS)
    assert (announced.status_code, chunked.status_code) == (status, status)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (wire.WireError("no texts"), (400, "no texts")),
        (ServiceUnavailable("70 texts wait already"), (503, "70 texts wait already")),
        (InvalidArgument("secret"), (400, "An unexpected error; see the log of the runner")),
        (ZeroDivisionError("secret"), (500, "An unexpected error; see the log of the runner")),
    ],
)
async def test_error_has_its_status_and_shows_no_internals(
    client: httpx.AsyncClient,
    calls: Calls,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    expected: tuple[int, str],
) -> None:
    calls.error = error
    with caplog.at_level(logging.WARNING, "bentoml.sentiment.runner"):
        reply = await client.post("/classify", content=b"body", headers=OURS)
    assert (reply.status_code, reply.text) == expected
    # A full runner does not log each call.
    assert len(caplog.records) == (0 if expected[0] == 503 else 1)


async def test_caller_that_hangs_up_gets_no_answer(calls: Calls) -> None:
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"half", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        raise AssertionError(message)

    headers = [(b"content-type", wire.CONTENT_TYPE.encode())]
    scope = {"type": "http", "method": "POST", "path": "/classify", "headers": headers}
    app = RunnerEndpoints(PlainTextResponse("BentoML"), calls.answers, MAX_BODY_BYTES)
    await asyncio.wait_for(app(scope, receive, send), 5)
    assert calls.bodies == []


async def test_caller_that_hangs_up_while_it_waits_cancels_its_call() -> None:
    """A call that the API gives up is not computed."""
    messages: asyncio.Queue[Message] = asyncio.Queue()
    messages.put_nowait({"type": "http.request", "body": b"body", "more_body": False})
    working, cancelled = asyncio.Event(), asyncio.Event()

    async def endless(_body: bytes) -> bytes:
        working.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError(message)

    headers = [(b"content-type", wire.CONTENT_TYPE.encode())]
    scope = {"type": "http", "method": "POST", "path": "/classify", "headers": headers}
    app = RunnerEndpoints(PlainTextResponse("BentoML"), lambda: answers(endless), MAX_BODY_BYTES)

    async def run() -> None:
        await app(scope, messages.get, send)

    before = asyncio.all_tasks()
    call = asyncio.create_task(run())
    await asyncio.wait_for(working.wait(), 5)
    messages.put_nowait({"type": "http.disconnect"})
    # Without asyncio.timeout, whose own cancellation would look like the one that is tested.
    await asyncio.wait([call], timeout=5)
    assert call.done()
    await call
    assert cancelled.is_set()
    assert call.cancelling() == 0
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_caller_that_stays_is_answered_however_long_it_takes(calls: Calls) -> None:
    async def slow(body: bytes) -> bytes:
        await asyncio.sleep(2 * WATCHED_AFTER_SECONDS)
        return await calls.answer(body)

    app = RunnerEndpoints(PlainTextResponse("BentoML"), lambda: answers(slow), MAX_BODY_BYTES)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://runner") as client:
        reply = await client.post("/classify", content=b"body", headers=OURS)
    assert (reply.status_code, reply.content) == (200, b"body")


async def test_websocket_is_closed(calls: Calls) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("read")

    async def send(message: Message) -> None:
        sent.append(message)

    app = RunnerEndpoints(PlainTextResponse("BentoML"), calls.answers, MAX_BODY_BYTES)
    await app({"type": "websocket", "path": "/classify", "headers": []}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
