"""The protocol answers a shed request just as the middleware would answer it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from core.asgi import send_response
from loadtest.ports import free_port
from serving.http_protocol import BoundedHttpProtocol
from tests.unit.fakes import counter
from tests.waiting import until
from web.body import DRAIN_BYTES, JsonBodyReader
from web.response_headers import CorsHeaders
from web.shedding import LoadShedder, LoadSheddingMiddleware
from web.targets import RequestTargets

TIMEOUT_SECONDS = 0.3
WAIT_SECONDS = 10.0
PATH = "/predict"
BODY = b'{"text": "So be it."}'
POST = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
REQUEST = POST + LENGTH + b"\r\n" + BODY
LAST = POST + LENGTH + b"Connection: close\r\n\r\n" + BODY
READER = JsonBodyReader(DRAIN_BYTES, WAIT_SECONDS)
GET = b"GET /livez HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\r\n"


class Switch(LoadShedder):
    """Refuses all until it is opened; counts the requests that it decided on."""

    def __init__(self) -> None:
        super().__init__({PATH})
        self.decided = 0
        self.lag_monitor.record_beat(-10.0)
        self.lag_monitor.record_beat(-5.0)  # late, and so it stays

    def admit(self, scope: Scope) -> bool:
        self.decided += 1
        return super().admit(scope)

    def open(self) -> None:
        for beat in range(1, 1_000):
            self.lag_monitor.record_beat(-5.0 + beat / 100)


@dataclass
class Site:
    """A real uvicorn, its shedder, and what came as far as its app."""

    port: int
    shedder: Switch
    server: uvicorn.Server
    protocol: type[BoundedHttpProtocol]
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    bodies: list[bytes] = field(default_factory=list)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.gate.wait()
        async with READER.reading(scope, receive) as body:
            self.bodies.append(body)
        await send_response(send, 200, b"{}")

    async def talk(self, *parts: bytes, pause_seconds: float = 0.0) -> bytes:
        """All that comes back until the server ends the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for part in parts:
                writer.write(part)
                await asyncio.sleep(pause_seconds)
            async with asyncio.timeout(WAIT_SECONDS):
                return await reader.read()
        finally:
            writer.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    port, closed = free_port(), Switch()

    class Hurried(BoundedHttpProtocol):
        header_timeout_seconds = TIMEOUT_SECONDS
        shedder = closed

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await it.app(scope, receive, send)

    layer = LoadSheddingMiddleware(app, closed)
    server = uvicorn.Server(
        uvicorn.Config(layer, port=port, http=Hurried, lifespan="off", log_config=None)
    )
    it = Site(port, closed, server, Hurried)
    it.gate.set()
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    yield it
    server.should_exit = True
    await serving


async def send(writer: asyncio.StreamWriter, length_bytes: int) -> None:
    for _ in range(length_bytes // 2**20):
        writer.write(b" " * 2**20)
        await writer.drain()


def statuses(replies: bytes) -> list[int]:
    """Of the answers, each of which must be as long as it says."""
    found = []
    while replies:
        head, _, replies = replies.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        [length] = [line for line in lines if line.startswith(b"content-length: ")]
        found.append(int(lines[0].split()[1]))
        body, replies = replies[: int(length[16:])], replies[int(length[16:]) :]
        assert isinstance(json.loads(body), dict)
    return found


async def test_answer_is_that_of_the_middleware(site: Site) -> None:
    """Whichever of the two answers; and it is counted."""
    extra = {"x-request-id": "mine"}
    of_middleware = httpx.ASGITransport(LoadSheddingMiddleware(site.app, Switch()))
    async with httpx.AsyncClient(transport=of_middleware, base_url="http://test") as http:
        expected = await http.post(PATH, content=BODY, headers=extra)
    before = [
        counter("shed_requests_total", reason="event_loop"),
        counter("http_requests_total", endpoint=PATH, status="503"),
    ]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{site.port}") as http:
        reply = await http.post(PATH, content=BODY, headers=extra)
        other = await http.post(PATH, content=BODY, headers={"x-request-id": "for {ged"})
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.json()["request_id"] == reply.headers["x-request-id"] == "mine"
    assert (reply.json(), reply.headers) == (expected.json(), expected.headers)
    assert other.json()["request_id"] == other.headers["x-request-id"] != "for {ged"
    assert [
        counter("shed_requests_total", reason="event_loop"),
        counter("http_requests_total", endpoint=PATH, status="503"),
    ] == [before[0] + 2, before[1] + 2]
    assert site.bodies == []


async def test_script_of_a_listed_website_can_read_the_refusal(site: Site) -> None:
    site.protocol.cors = CorsHeaders(("https://shop.example",))
    origin = b"Origin: https://shop.example\r\n"
    own = await site.talk(LAST.replace(b"Host", origin + b"Host"))
    other = await site.talk(LAST.replace(b"Host", origin.replace(b"shop", b"evil") + b"Host"))
    assert statuses(own) == statuses(other) == [503]
    assert b"\r\naccess-control-allow-origin: https://shop.example\r\n" in own
    assert b"Retry-After" in own.partition(b"access-control-expose-headers: ")[2]
    assert b"access-control" not in other


@pytest.mark.parametrize("target", [b"/predict/", b"/below/predict", b"/below/predict/"])
async def test_other_spelling_of_the_path_is_refused_too(site: Site, target: bytes) -> None:
    site.protocol.targets = RequestTargets("/below")
    assert statuses(await site.talk(LAST.replace(PATH.encode(), target))) == [503]
    assert site.shedder.decided == 1


async def test_connection_is_kept_or_ended_as_the_client_says(site: Site) -> None:
    assert statuses(await site.talk(REQUEST, GET, REQUEST + GET + REQUEST, LAST)) == [
        503, 200, 503, 200, 503, 503,
    ]  # fmt: skip
    assert statuses(await site.talk(LAST + REQUEST)) == [503]
    old = b"POST /predict HTTP/1.0\r\n" + LENGTH + b"\r\n" + BODY
    reply = await site.talk(old)
    assert statuses(reply) == [503]
    assert b"\r\nconnection: close\r\n" in reply


async def test_other_requests_are_admitted_undecided(site: Site) -> None:
    feedback = LAST.replace(b"/predict", b"/feedback")
    assert statuses(await site.talk(GET, feedback)) == [200, 200]
    assert site.shedder.decided == 0


async def test_admitted_request_is_decided_once(site: Site) -> None:
    site.shedder.open()
    assert statuses(await site.talk(REQUEST, REQUEST, LAST)) == [200, 200, 200]
    assert (site.bodies, site.shedder.decided) == ([BODY] * 3, 3)


async def test_body_that_comes_later_is_thrown_away(site: Site) -> None:
    pieces = [POST + LENGTH + b"\r\n", BODY[:5], BODY[5:]]
    reply = await site.talk(*pieces, GET, *pieces, LAST, pause_seconds=0.02)
    assert statuses(reply) == [503, 200, 503, 503]
    chunked = [POST + b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nabcde\r\n", b"0\r\n\r\n"]
    assert statuses(await site.talk(*chunked, LAST, pause_seconds=0.02)) == [503, 503]
    assert site.bodies == [b""]


async def test_body_that_does_not_come_is_not_waited_for(site: Site) -> None:
    assert statuses(await site.talk(POST + LENGTH + b"\r\n", BODY[:5])) == [503]


async def test_endless_body_ends_the_connection(site: Site) -> None:
    site.protocol.header_timeout_seconds = 10 * WAIT_SECONDS
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(POST + b"Content-Length: %d\r\n\r\n" % (100 * DRAIN_BYTES))
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    with pytest.raises(ConnectionError):
        await send(writer, 10 * DRAIN_BYTES)
    writer.close()


async def test_client_that_expects_100_continue_is_answered_at_once(site: Site) -> None:
    reply = await site.talk(POST + LENGTH + b"Expect: 100-continue\r\n\r\n")
    assert statuses(reply) == [503]
    assert b"\r\nconnection: close\r\n" in reply


async def test_answers_keep_their_order(site: Site) -> None:
    site.gate.clear()
    talking = asyncio.create_task(site.talk(GET + REQUEST + GET + LAST))
    await until(lambda: bool(site.server.server_state.tasks))
    site.gate.set()
    assert statuses(await talking) == [200, 503, 200, 503]


async def test_client_that_does_not_read_takes_no_memory(site: Site) -> None:
    many = 10_000
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    client.connect(("127.0.0.1", site.port))
    reader, writer = await asyncio.open_connection(sock=client)
    writer.write(REQUEST * many + LAST)
    await until(lambda: bool(site.server.server_state.connections))
    [protocol] = site.server.server_state.connections
    assert isinstance(protocol, BoundedHttpProtocol)
    await until(lambda: protocol.flow.write_paused)
    assert protocol.transport.get_write_buffer_size() < 2**20
    async with asyncio.timeout(WAIT_SECONDS):
        replies = await reader.read()
    writer.close()
    assert statuses(replies) == [503] * (many + 1)
