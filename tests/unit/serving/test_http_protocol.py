"""Connections that send headers slowly, without end, or not at all come to an end themselves."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from uvicorn.config import HTTP_PROTOCOLS

from loadtest.ports import free_port
from serving.connection import MAX_HEADER_BYTES
from serving.http_protocol import BoundedHttpProtocol, use_bounded_protocol
from tests.unit.fakes import counter
from tests.waiting import until
from web.response_headers import CorsHeaders
from web.shedding import LoadShedder
from web.targets import RequestTargets

TIMEOUT_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 1
WAIT_SECONDS = 10.0
GET = b"GET / HTTP/1.1\r\nHost: test\r\n"


SHOP = "https://shop.example"


class Hurried(BoundedHttpProtocol):
    header_timeout_seconds = TIMEOUT_SECONDS
    keep_alive_seconds = KEEP_ALIVE_SECONDS
    targets = RequestTargets("/models/sentiment")
    cors = CorsHeaders((SHOP,))


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with `ok`, and the path and query as the app sees them."""
    path = f"{scope['path']}?{scope['query_string'].decode()}"
    response = PlainTextResponse("ok", headers={"X-Path": path.removesuffix("?")})
    await response(scope, receive, send)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Where a real uvicorn listens."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(
            echo, port=port, http=Hurried, interface="asgi3", lifespan="off", log_config=None
        )
    )
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    yield port
    server.should_exit = True
    await serving


async def talk(port: int, *parts: bytes, pause_seconds: float = 0.0) -> bytes:
    """All that comes back until the server ends the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause_seconds)
        async with asyncio.timeout(WAIT_SECONDS):
            return await reader.read()
    finally:
        writer.close()


def problem(reply: bytes) -> tuple[int, str]:
    head, _, body = reply.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    assert int(head.split()[1]) == json.loads(body)["status"]
    assert f"x-request-id: {json.loads(body)['request_id']}\r\n".encode() in head
    return int(head.split()[1]), json.loads(body)["detail"]


async def test_a_request_is_answered_and_the_connection_kept(port: int) -> None:
    request = GET + b"\r\n"
    last = GET + b"Connection: close\r\n\r\n"
    assert (await talk(port, request, request, last)).count(b"200 OK") == 3
    # Slowly, but not too slowly, and one after the other for longer than one may take.
    pieces = [GET, b"\r\n", GET, b"\r\n", GET, b"Connection: close\r\n\r\n"]
    reply = await talk(port, *pieces, pause_seconds=TIMEOUT_SECONDS / 3)
    assert reply.count(b"200 OK") == 3


async def test_a_connection_is_kept_for_as_long_as_is_said(port: int) -> None:
    started = time.monotonic()
    assert (await talk(port, GET + b"\r\n")).count(b"200 OK") == 1
    assert KEEP_ALIVE_SECONDS <= time.monotonic() - started < KEEP_ALIVE_SECONDS + 2


async def test_who_sends_nothing_is_hung_up_on(port: int) -> None:
    assert await talk(port) == b""


async def test_half_a_request_is_told_that_it_is_late(port: int) -> None:
    before = counter("timed_out_requests_total", reason="headers")
    assert problem(await talk(port, GET)) == (408, "The headers took longer than 1 s to come")
    kept = await talk(port, GET + b"\r\n", GET, pause_seconds=0.05)
    assert kept.startswith(b"HTTP/1.1 200 OK")
    assert b"HTTP/1.1 408 Request Timeout" in kept
    assert counter("timed_out_requests_total", reason="headers") - before == 2


async def test_headers_that_trickle_are_late_too(port: int) -> None:
    parts = [b"X-%d: 1\r\n" % number for number in range(20)]
    with pytest.raises((ConnectionError, AssertionError)):
        assert not await talk(port, GET, *parts, pause_seconds=TIMEOUT_SECONDS / 5)


async def test_headers_without_end_are_refused(port: int) -> None:
    line = b"X: " + b"x" * 10_000 + b"\r\n"
    reply = await talk(port, GET, *[line] * (1 + MAX_HEADER_BYTES // 10_000), pause_seconds=0.01)
    assert problem(reply) == (431, "The headers of a request may have at most 65,536 bytes")


async def test_what_came_before_the_headers_is_not_counted_as_theirs(port: int) -> None:
    body = b"x" * MAX_HEADER_BYTES
    post = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    reply = await talk(port, post + GET, b"Connection: close\r\n\r\n", pause_seconds=0.05)
    assert reply.count(b"200 OK") == 2


async def test_what_is_no_http_gets_a_problem(port: int) -> None:
    assert problem(await talk(port, b"hello?\r\n\r\n")) == (400, "Invalid HTTP request received.")


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("/predict", "/predict"),
        ("/predict/", "/predict"),
        ("/models/sentiment/predict", "/predict"),
        ("/models/sentiment/predict/", "/predict"),
        ("/models/sentiment/", "/"),
        ("/models/sentiment/docs/", "/docs/"),
        ("/models/sentiment/analytics/summary/?since=1h", "/analytics/summary?since=1h"),
        ("http://proxy.test/health?x", "/health?x"),
        # An escape stays what it is, or a proxy's rule about /predict would not hold.
        *(
            (target, target)
            for target in (
                *("/%70redict", "/predict%2F", "/predict%2f", "/admin%2frollout", "/%2e/predict"),
                *("/predict%00", "/%zz", "/%", "/models/sentiment%2Fpredict", "/%E2%82%AC"),
                *("/x/..%2fpredict", "/predict%3Fa", "/%252e", "/dashboard/%2e%2e/health"),
            )
        ),
        ("/models/sentimental/predict", "/models/sentimental/predict"),
    ],
)
async def test_app_sees_the_path_inside_the_service(port: int, target: str, seen: str) -> None:
    request = f"GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    # Also when it waits for the request before it.
    for sent in (request.encode(), GET + b"\r\n" + request.encode()):
        assert f"x-path: {seen}\r\n".lower().encode() in (await talk(port, sent)).lower()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("query", ["", "?a=/b"])
async def test_prefix_alone_is_redirected_relatively(port: int, method: str, query: str) -> None:
    """To the service's page, whose relative links would lead out of the prefix otherwise."""
    head = f"{method} /models/sentiment{query} HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n"
    last = GET + b"Connection: close\r\n\r\n"
    for before in (b"", GET + b"\r\n"):
        reply = await talk(port, before + head.encode() + b"{}" + last)
        assert reply.count(b"HTTP/1.1 308 ") == 1
        assert f"location: sentiment/{query}\r\n".encode() in reply
        assert reply.count(b"200 OK") == 1 + bool(before)


ORIGIN = f"Origin: {SHOP}\r\n".encode()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (GET + ORIGIN + b"X: 1\r\nno colon\r\n\r\n", 400),
        (GET + ORIGIN + b"X: 1\r\n", 408),
        (GET + ORIGIN + b"X: " + b"x" * 70_000, 431),
        (b"CONNECT test:1 HTTP/1.1\r\n" + ORIGIN + b"\r\n", 405),
    ],
)
async def test_script_of_a_listed_website_can_read_a_refusal_of_the_parser(
    port: int, request_: bytes, status: int
) -> None:
    """Otherwise it learns of a network error, and nothing of why."""
    allowed = f"access-control-allow-origin: {SHOP}\r\n".encode()
    reply = await talk(port, request_)
    assert problem(reply)[0] == status
    assert reply.count(allowed) == reply.count(b"vary: Origin\r\n") == 1
    other = await talk(port, request_.replace(b"shop", b"evil"))
    assert problem(other)[0] == status
    assert b"access-control" not in other


def test_servers_speak_it_from_then_on() -> None:
    protocol = BoundedHttpProtocol
    settings = (
        *("header_timeout_seconds", "keep_alive_seconds", "max_connections", "shedder"),
        *("targets", "cors"),
    )
    before = HTTP_PROTOCOLS["auto"], {name: getattr(protocol, name) for name in settings}
    shedder = LoadShedder({"/predict"})
    try:
        use_bounded_protocol(
            header_timeout_seconds=3.0,
            keep_alive_seconds=60,
            max_connections=7,
            shedder=shedder,
            path_prefix="/below",
            cors_origins=("https://shop.example",),
        )
        config = uvicorn.Config(PlainTextResponse("ok"), log_config=None)
        config.load()
        assert config.http_protocol_class is protocol
        assert [getattr(protocol, name) for name in settings[:4]] == [3.0, 60, 7, shedder]
        assert protocol.targets.inner(b"/below/predict") == b"/predict"
        assert protocol.cors.of([(b"origin", b"https://shop.example")])
    finally:
        HTTP_PROTOCOLS["auto"] = before[0]
        for name, value in before[1].items():
            setattr(protocol, name, value)
