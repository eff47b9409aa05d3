"""Bodies that are no JSON, too large or too slow are refused before anything parses them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import orjson
import pytest
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from core.errors import (
    BodyTooLarge,
    BodyTooSlow,
    MalformedRequest,
    Overloaded,
    UnsupportedMedia,
)
from core.request_context import context_of
from tests.unit.fakes import counter
from web.body import BUDGET_BODIES, DRAIN_BYTES, JsonBodyReader
from web.body_budget import FREE_BYTES
from web.problems import ProblemMiddleware

WAIT_SECONDS = 10.0
JSON = {"Content-Type": "application/json"}


def reading(limit: int) -> httpx.AsyncClient:
    """A client of an app that reads at most so many bytes, and answers with their number."""
    reader = JsonBodyReader(limit, WAIT_SECONDS)

    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        async with reader.reading(scope, receive) as body:
            length = len(body)
        await Response(orjson.dumps(length))(scope, receive, send)

    transport = httpx.ASGITransport(ProblemMiddleware(echo))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size):
        yield b"a"


@pytest.mark.parametrize(("size", "status"), [(0, 200), (10, 200), (11, 413), (5_000, 413)])
async def test_body_up_to_the_limit_is_read_and_a_larger_one_refused(
    size: int, status: int
) -> None:
    async with reading(10) as http:
        announced = await http.post("/predict", content=b"a" * size, headers=JSON)
        chunked = await http.post("/predict", content=chunks(size), headers=JSON)
    assert (announced.status_code, chunked.status_code) == (status, status)
    if status == 413:
        assert announced.json()["detail"] == chunked.json()["detail"]
        assert announced.json()["detail"] == "A request body may have at most 10 bytes"
        assert announced.headers["connection"] == chunked.headers["connection"] == "close"
    else:
        assert announced.json() == chunked.json() == size


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        (None, 415),
        ("", 415),
        ("text/plain", 415),
        ("application/jsonp", 415),
        ("application/vnd.bentoml+pickle", 415),
    ],
)
async def test_only_json_is_read(media_type: str | None, status: int) -> None:
    headers = {} if media_type is None else {"Content-Type": media_type}
    async with reading(10) as http:
        reply = await http.post("/predict", content=b"{}", headers=headers)
    assert reply.status_code == status
    if status == 415:
        assert reply.headers["accept-post"] == "application/json"


async def test_body_with_two_types_is_refused() -> None:
    body = Body(part(4, more=False))
    with pytest.raises(UnsupportedMedia, match="Send one Content-Type: application/json"):
        await read(body, [(b"content-type", b"application/json"), (b"content-type", b"text/plain")])
    assert body.received == 0


async def test_type_is_one_of_those_that_the_route_declares() -> None:
    scope: Scope = {
        "type": "http", "method": "POST", "path": "/predict",
        "headers": [(b"content-type", b"text/csv; charset=utf-8")],
    }  # fmt: skip
    reader = JsonBodyReader(10, WAIT_SECONDS)
    body = Body(part(4, more=False))
    async with reader.reading(scope, body.receive, ("text/csv", "application/json")) as found:
        assert found == b"aaaa"


async def test_body_of_another_type_is_refused_unread() -> None:
    body = Body(part(4, more=False))
    with pytest.raises(
        UnsupportedMedia, match="Send one Content-Type: application/json, not text/plain"
    ):
        await read(body, [(b"content-type", b"text/plain"), (b"content-length", b"12")])
    assert body.received == 0


class Body:
    """An ASGI body of these messages, then a disconnect; counts how often it was asked."""

    def __init__(self, *messages: Message) -> None:
        self.messages = list(messages)
        self.received = 0

    async def receive(self) -> Message:
        self.received += 1
        return self.messages.pop(0) if self.messages else {"type": "http.disconnect"}


def part(size: int, *, more: bool) -> Message:
    return {"type": "http.request", "body": b"a" * size, "more_body": more}


async def read(
    body: Body,
    headers: list[tuple[bytes, bytes]] | None = None,
    seconds: float = WAIT_SECONDS,
) -> bytes:
    """Read a body of at most 10 bytes, of JSON unless `headers` say otherwise."""
    headers = headers or []
    if not any(name == b"content-type" for name, _ in headers):
        headers = [*headers, (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers}
    async with JsonBodyReader(10, seconds).reading(scope, body.receive) as found:
        return found


@pytest.mark.parametrize(
    "parts", [[b""], [b'{"a": "x"}'], [b'{"te', b'xt":', b"1}"], [b"a" * 8, b"", b"b"]]
)
async def test_parts_of_a_body_are_put_together(parts: list[bytes]) -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": content, "more_body": content is not parts[-1]}
        for content in parts
    ]
    del messages[-1]["more_body"]  # as ASGI has it: without, it is False
    body = Body(*messages)
    assert await read(body) == b"".join(parts)
    # What comes after the body is for others to ask for.
    assert body.received == len(parts)


async def test_client_that_leaves_within_its_body_is_a_malformed_request() -> None:
    body = Body(part(4, more=True))
    with pytest.raises(MalformedRequest, match="ended before"):
        await read(body)
    assert body.received == 2


async def test_parts_that_come_late_are_waited_for() -> None:
    more = asyncio.Event()

    class Late(Body):
        async def receive(self) -> Message:
            if len(self.messages) == 1:
                await more.wait()
            return await super().receive()

    reading = asyncio.create_task(read(Late(part(4, more=True), part(3, more=False))))
    await asyncio.sleep(0.05)
    assert not reading.done()
    more.set()
    assert await reading == b"a" * 7


async def test_body_announced_too_large_is_read_to_its_end() -> None:
    body = Body(part(6, more=True), part(6, more=False), part(1, more=False))
    with pytest.raises(BodyTooLarge):
        await read(body, [(b"content-length", b"12")])
    assert body.received == 2


async def test_body_that_grows_too_large_is_read_to_its_end() -> None:
    body = Body(part(6, more=True), part(6, more=True), part(6, more=False), part(1, more=False))
    with pytest.raises(BodyTooLarge):
        await read(body)
    assert body.received == 3


async def test_client_that_leaves_while_refused_is_not_waited_for() -> None:
    body = Body(part(6, more=True))
    with pytest.raises(BodyTooLarge):
        await read(body, [(b"content-length", b"12")])
    assert body.received == 2


async def test_endless_body_is_not_read_for_ever() -> None:
    body = Body(*[part(DRAIN_BYTES // 4, more=True)] * 100)
    with pytest.raises(BodyTooLarge):
        await read(body, [(b"content-length", b"99999999999")])
    assert body.received == 4


class SlowBody(Body):
    """A body whose client stops sending after its messages, and stays."""

    async def receive(self) -> Message:
        if not self.messages:
            await asyncio.Event().wait()
        return await super().receive()


async def test_client_that_stops_sending_is_not_waited_for() -> None:
    before = counter("timed_out_requests_total", reason="body")
    with pytest.raises(BodyTooSlow, match=r"longer than 0\.05 s"):
        await read(SlowBody(part(4, more=True)), seconds=0.05)
    assert counter("timed_out_requests_total", reason="body") - before == 1


async def test_refused_client_that_stops_sending_is_not_waited_for() -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        with pytest.raises(BodyTooLarge):
            await read(SlowBody(part(6, more=True)), [(b"content-length", b"12")], seconds=0.05)


async def test_whole_body_that_came_in_time_does_not_time_out_later() -> None:
    """After the body the client may wait for its answer for longer."""
    body = SlowBody(part(4, more=False))
    assert await read(body, seconds=0.05) == b"a" * 4
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await body.receive()


class Sender:
    """A client that sends a body in parts, when the test says so."""

    def __init__(self, reader: JsonBodyReader, caller: str, **headers: str) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        types = {"content-type": "application/json", **headers}
        scope: Scope = {
            "type": "http",
            "headers": [(name.encode(), value.encode()) for name, value in types.items()],
        }
        context_of(scope).caller = caller
        self.reading = asyncio.ensure_future(self._read(reader, scope))

    async def _read(self, reader: JsonBodyReader, scope: Scope) -> bytes:
        async with reader.reading(scope, self._messages.get) as body:
            return body

    async def send(self, length: int, *, more: bool = True) -> None:
        message = {"type": "http.request", "body": b"a" * length, "more_body": more}
        await self._messages.put(message)
        await asyncio.sleep(0)  # the queue wakes its reader
        await asyncio.sleep(0)

    async def leave(self) -> None:
        await self._messages.put({"type": "http.disconnect"})
        with suppress(MalformedRequest, Overloaded, BodyTooLarge, asyncio.CancelledError):
            await self.reading


MAX_BYTES = 1_048_576
# Bodies of this size take the whole budget together, each caller has as much as it may.
LARGE_BYTES = MAX_BYTES // 2 + FREE_BYTES


@pytest.fixture
async def full_reader() -> AsyncIterator[tuple[JsonBodyReader, list[Sender]]]:
    """A reader without room for another large body, and those who have taken it."""
    reader = JsonBodyReader(MAX_BYTES, WAIT_SECONDS)
    senders = [Sender(reader, f"key {number % 2}") for number in range(2 * BUDGET_BODIES)]
    for sender in senders:
        await sender.send(LARGE_BYTES)
    yield reader, senders
    for sender in senders:
        await sender.leave()


async def test_large_bodies_that_come_at_once_share_a_budget(
    full_reader: tuple[JsonBodyReader, list[Sender]],
) -> None:
    reader, senders = full_reader
    assert not any(sender.reading.done() for sender in senders)
    late = Sender(reader, "late")
    await late.send(FREE_BYTES + 1)
    await late.send(1, more=False)  # the refused body is read to its end
    with pytest.raises(Overloaded, match="Too many large bodies") as refusal:
        await late.reading
    assert refusal.value.of_large, "a refused large body says nothing of small requests"


@pytest.mark.parametrize("length", [0, 1, FREE_BYTES - 1, FREE_BYTES])
async def test_small_body_is_read_beside_many_large_ones(
    full_reader: tuple[JsonBodyReader, list[Sender]], length: int
) -> None:
    small = Sender(full_reader[0], "late")
    await small.send(length, more=False)
    assert len(await small.reading) == length


@pytest.mark.parametrize("end", ["complete", "leave", "too large", "refuse", "cancel"])
async def test_body_that_has_ended_makes_room(
    full_reader: tuple[JsonBodyReader, list[Sender]], end: str
) -> None:
    reader, senders = full_reader
    match end:
        case "complete":
            await senders[0].send(0, more=False)
        case "leave":
            await senders[0].leave()
        case "too large":
            await senders[0].send(MAX_BYTES)  # its rest is awaited
        case "refuse":
            await senders[0].send(1)
        case "cancel":
            senders[0].reading.cancel()
            await asyncio.wait({senders[0].reading})
    late = Sender(reader, "late")
    await late.send(LARGE_BYTES, more=False)
    assert len(await late.reading) == LARGE_BYTES


async def test_caller_gets_half_of_the_budget() -> None:
    reader = JsonBodyReader(MAX_BYTES, WAIT_SECONDS)
    greedy = [Sender(reader, "greedy") for _ in range(BUDGET_BODIES + 1)]
    for sender in greedy:
        await sender.send(LARGE_BYTES)
    await greedy[-1].send(0, more=False)
    with pytest.raises(Overloaded):
        await greedy[-1].reading
    other = Sender(reader, "other")
    await other.send(LARGE_BYTES, more=False)
    assert len(await other.reading) == LARGE_BYTES
    for sender in greedy[:-1]:
        await sender.leave()
