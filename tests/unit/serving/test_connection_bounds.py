"""What a hostile client sends is bounded in bytes and time, whatever the connection waits for."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from core.asgi import ClientDisconnected, cancelled_on_disconnect, send_response
from loadtest.ports import free_port
from serving.connection import MAX_HEADER_BYTES, MAX_HEADERS, MAX_TARGET_BYTES, PIECE_BYTES
from serving.http_protocol import BoundedHttpProtocol
from serving.parser_turns import (
    BURST_SECONDS,
    MAX_WAIT_SECONDS,
    SECONDS_PER_BYTE,
    SECONDS_PER_PART,
    SHARE,
    ParserTurns,
)
from serving.request_head import MAX_ESCAPES, MAX_PARAMETERS, MAX_PATH_BYTES, MAX_SEGMENTS
from tests.unit.fakes import counter
from tests.waiting import until
from web.body import DRAIN_BYTES, JsonBodyReader

TIMEOUT_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 1
WAIT_SECONDS = 8.0
MAX_CONNECTIONS = 100
MIB = 2**20
READER = JsonBodyReader(DRAIN_BYTES, WAIT_SECONDS)
GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
JSON_POST = b"POST %s HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
# A route that reads the body, and one that refuses the request unread.
READS, REFUSES = JSON_POST % b"/read", JSON_POST % b"/refused"


class Hurried(BoundedHttpProtocol):
    header_timeout_seconds = TIMEOUT_SECONDS
    keep_alive_seconds = KEEP_ALIVE_SECONDS
    send_timeout_seconds = TIMEOUT_SECONDS
    max_connections = MAX_CONNECTIONS


@dataclass
class Site:
    """A real uvicorn, and what came as far as its app."""

    port: int
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[list[tuple[bytes, bytes]]] = field(default_factory=list)
    running: int = 0
    left: int = 0

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["path"]:
            case "/read":
                async with READER.reading(scope, receive) as body:
                    self.bodies.append(body)
                self.headers.append(scope["headers"])
                self.running += 1
                try:
                    async with cancelled_on_disconnect(receive):
                        await self.gate.wait()
                except ClientDisconnected:
                    self.left += 1
                    return
                await send_response(send, 200, b"{}")
            case "/large":
                await send_response(send, 200, b" " * 64 * MIB)
            case "/refused":
                await send_response(send, 401, b"{}")
            case _:
                await send_response(send, 200, b"{}")

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site(free_port())
    site.gate.set()
    server = uvicorn.Server(
        uvicorn.Config(
            site.app,
            port=site.port,
            http=Hurried,
            interface="asgi3",
            lifespan="off",
            log_config=None,
        )
    )
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    yield site
    server.should_exit = True
    await serving


async def test_connection_that_was_reset_before_it_was_accepted_is_nobodys(site: Site) -> None:
    """Its client has no address any more; the repeat would be another client's request."""
    with socket.create_connection(("127.0.0.1", site.port)) as client:
        client.sendall(READS + b"Content-Length: 2\r\n\r\n{}")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # The loop accepts only now.
    reader, writer = await site.connect()
    writer.write(READS + b"Content-Length: 4\r\nConnection: close\r\n\r\n[1] ")
    await reader.read()
    writer.close()
    assert site.bodies == [b"[1] "]


async def answered_until_the_end(
    site: Site, *parts: bytes, pause_seconds: float = 0.0, half_close: bool = False
) -> bytes:
    """All that comes back until the server ends the connection."""
    reader, writer = await site.connect()
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause_seconds)
        if half_close:
            writer.write_eof()
        async with asyncio.timeout(WAIT_SECONDS):
            return await reader.read()
    finally:
        writer.close()


async def flood(site: Site, head: bytes, endless: Callable[[], bytes]) -> int:
    """Send without end; how many bytes the server took before it ended the connection."""
    reader, writer = await site.connect()
    sent = 0
    writer.write(head)
    reading = asyncio.create_task(reader.read())
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                part = endless()
                writer.write(part)
                await writer.drain()
                sent += len(part)
    except ConnectionError:
        return sent
    finally:
        reading.cancel()
        writer.close()


@pytest.mark.parametrize(
    ("head", "endless", "most_bytes"),
    [
        pytest.param(READS + CHUNKED + b"0\r\n", b"a: 1\r\n" * 10_000, MIB, id="trailers"),
        pytest.param(READS + CHUNKED + b"0\r\na: ", b"1" * 60_000, MIB, id="one long trailer"),
        pytest.param(READS + CHUNKED + b"1;a=", b"1" * 60_000, MIB, id="chunk extension"),
        pytest.param(REFUSES + CHUNKED + b"0\r\n", b"a: 1\r\n" * 10_000, MIB, id="refused tail"),
        pytest.param(
            REFUSES + CHUNKED, b"%x\r\n%s\r\n" % (MIB, b"x" * MIB), 2 * DRAIN_BYTES,
            id="refused body",
        ),
        pytest.param(
            REFUSES + b"Content-Length: 99999999999\r\n\r\n", b"x" * MIB, 2 * DRAIN_BYTES,
            id="refused long body",
        ),
        pytest.param(GET, b"\r\n" * 30_000, MIB, id="empty lines"),
    ],
)  # fmt: skip
async def test_endless_bytes_end_the_connection(
    site: Site, head: bytes, endless: bytes, most_bytes: int
) -> None:
    # The systems of both sides hold some megabytes.
    assert await flood(site, head, lambda: endless) < most_bytes + 16 * MIB
    assert site.headers == []


async def test_body_in_chunks_of_a_byte_comes_whole_and_not_byte_by_byte(site: Site) -> None:
    content = b'{"text": "' + b"x" * 30_000 + b'"}'
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in content)
    second = READS + b"Connection: close\r\n" + b"Content-Length: 2\r\n\r\n{}"
    reply = await answered_until_the_end(site, READS + CHUNKED + chunks + b"0\r\n\r\n" + second)
    assert STATUS.findall(reply) == [b"200", b"200"]
    assert site.bodies == [content, b"{}"]


def chunked(content: bytes, size: int) -> bytes:
    parts = [content[start : start + size] for start in range(0, len(content), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


async def seconds_of_four(site: Site, request: bytes) -> float:
    """How long four connections with the request take at once."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(answered_until_the_end(site, request))
    return time.monotonic() - began


async def test_small_chunks_take_turns_on_all_connections(site: Site) -> None:
    content = b'{"text": "' + b"x" * 20_000 + b'"}'
    request = READS + b"Connection: close\r\n" + CHUNKED + chunked(content, 1)
    # Nobody waits for what was parsed last.
    shared = 4 * (len(content) - PIECE_BYTES) * SECONDS_PER_PART / SHARE - BURST_SECONDS
    assert await seconds_of_four(site, request) > shared
    assert site.bodies == 4 * [content]


@pytest.mark.parametrize("answer", [READS, REFUSES])
async def test_chunks_as_long_as_lines_wait_for_nobody(site: Site, answer: bytes) -> None:
    turns = BoundedHttpProtocol.parser_turns
    loop = asyncio.get_running_loop()
    turns.wait_seconds(loop.time(), parts=10**9)
    try:
        request = answer + b"Connection: close\r\n" + CHUNKED + chunked(b" " * 30_000, 50)
        began = time.monotonic()
        await answered_until_the_end(site, request)
        assert time.monotonic() - began < MAX_WAIT_SECONDS
    finally:
        BoundedHttpProtocol.parser_turns = ParserTurns()


@pytest.mark.parametrize("answer", [READS, REFUSES])
async def test_large_bodies_take_turns_on_all_connections(site: Site, answer: bytes) -> None:
    body = b" " * 2 * MIB
    last = GET[:-2] + b"Connection: close\r\n\r\n"
    request = answer + b"Content-Length: %d\r\n\r\n" % len(body) + body + last
    # Nobody waits for what was read last, up to 256 KiB.
    shared = 4 * (len(body) - MIB) * SECONDS_PER_BYTE / SHARE - BURST_SECONDS
    assert await seconds_of_four(site, request) > shared


async def test_bodies_that_are_sent_ahead_take_turns_too(site: Site) -> None:
    body = b" " * 60_000
    request = REFUSES + b"Content-Length: %d\r\n\r\n" % len(body) + body
    began = time.monotonic()
    await answered_until_the_end(site, 100 * request + GET[:-2] + b"Connection: close\r\n\r\n")
    shared = 90 * len(body) * SECONDS_PER_BYTE / SHARE - BURST_SECONDS
    assert time.monotonic() - began > shared


async def test_flood_of_refused_bodies_delays_no_body_that_is_read(site: Site) -> None:
    loop = asyncio.get_running_loop()
    Hurried.refused_turns.wait_seconds(loop.time(), body_bytes=10**12)
    try:
        body = b" " * MIB
        request = READS + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        began = time.monotonic()
        await answered_until_the_end(site, request)
        assert time.monotonic() - began < MAX_WAIT_SECONDS / 2
    finally:
        BoundedHttpProtocol.refused_turns = ParserTurns()


@pytest.mark.parametrize("half_close", [False, True])
@pytest.mark.parametrize(
    "part",
    [
        pytest.param(READS + CHUNKED + chunked(b" " * 20_000, 1), id="body"),
        pytest.param(REFUSES + CHUNKED + chunked(b" " * 20_000, 1), id="refused body"),
        pytest.param(READS + CHUNKED + b"2\r\n{}\r\n0\r\n" + b"a:\r\n" * 9_000 + b"\r\n",
                     id="trailers"),
        pytest.param(GET[:-2] + b"Cookie:\r\n" * 6_000 + b"\r\n", id="cookies"),
    ],
)  # fmt: skip
async def test_requests_of_many_parts_are_answered_in_turn(
    site: Site, part: bytes, *, half_close: bool
) -> None:
    requests = 3 * part + GET.replace(b"Host", b"Connection: close\r\nHost")
    reply = await answered_until_the_end(site, requests, half_close=half_close)
    first = b"401" if part.startswith(REFUSES) else b"200"
    assert STATUS.findall(reply) == [first, first, first, b"200"]


async def test_trailers_within_the_bound_are_dropped(site: Site) -> None:
    trailer = b"X-Late: " + b"x" * 1_000 + b"\r\n"
    request = READS + b"Connection: close\r\n" + CHUNKED + b"2\r\n{}\r\n0\r\n" + 20 * trailer
    reply = await answered_until_the_end(site, request + b"\r\n")
    assert reply.startswith(b"HTTP/1.1 200 OK")
    assert site.bodies == [b"{}"]
    [headers] = site.headers
    assert b"x-late" not in dict(headers)


async def test_trailers_without_end_get_a_431(site: Site) -> None:
    line = b"X: " + b"x" * 1_000 + b"\r\n"
    lines = [line] * (1 + MAX_HEADER_BYTES // len(line))  # and not one more, for a reset
    reply = await answered_until_the_end(
        site, READS + CHUNKED + b"0\r\n", *lines, pause_seconds=0.001
    )
    assert reply.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("before", [b"", GET])
@pytest.mark.parametrize("beyond", [0, 1, 3_000])
async def test_target_beyond_the_bound_gets_a_414(site: Site, before: bytes, beyond: int) -> None:
    line = b"GET /?" + b"a" * (MAX_TARGET_BYTES - 2 + beyond) + b" HTTP/1.1\r\n"
    counted = counter("http_requests_total", endpoint="other", status="414")
    reply = await answered_until_the_end(
        site, before + line + b"Connection: close\r\nHost: test\r\n\r\n"
    )
    last = b"414" if beyond else b"200"
    assert STATUS.findall(reply) == [b"200"] * bool(before) + [last]
    is_counted = counter("http_requests_total", endpoint="other", status="414") - counted
    assert is_counted == bool(beyond)
    assert (b"may have at most 16,384 bytes" in reply) == bool(beyond)


@pytest.mark.parametrize("address", [b"", b"http://test"])
@pytest.mark.parametrize("beyond", [0, 1, 3_000])
async def test_path_beyond_the_bound_gets_a_414(site: Site, address: bytes, beyond: int) -> None:
    """Each escape in a path costs the server a microsecond, and no key is asked for before."""
    start = address + b"/"
    path = start + b"%41" * 900 + b"a" * 5_000
    head = b"GET " + path[: MAX_PATH_BYTES + beyond] + b"?a=" + b"b" * 9_000 + b" HTTP/1.1\r\n"
    reply = await answered_until_the_end(site, head + b"Connection: close\r\nHost: test\r\n\r\n")
    assert STATUS.findall(reply) == [b"414" if beyond else b"200"]
    assert (b"The path of a request may have at most 2,048 bytes" in reply) == (beyond > 0)


@pytest.mark.parametrize("address", [b"", b"http://test"])
@pytest.mark.parametrize("folder", [b"", b"/dashboard", b"/static_content"])
async def test_path_of_many_segments_gets_a_414(site: Site, address: bytes, folder: bytes) -> None:
    """The folders of files look each of them up, without a key."""
    for segments, status in ((25, b"200"), (MAX_SEGMENTS + 1, b"414"), (900, b"414")):
        head = b"GET " + address + folder + b"/a" * segments + b" HTTP/1.1\r\nHost: test\r\n"
        reply = await answered_until_the_end(site, head + b"Connection: close\r\n\r\n")
        assert STATUS.findall(reply) == [status]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        (b"&".join([b"a=%41"] * MAX_PARAMETERS), b"200"),
        (b"&" * MAX_PARAMETERS, b"414"),
        (b"%" * MAX_ESCAPES, b"200"),
        (b"a=" + b"%" * (MAX_ESCAPES + 1), b"414"),
    ],
)
async def test_query_that_is_dear_to_take_apart_gets_a_414(
    site: Site, query: bytes, status: bytes
) -> None:
    head = b"GET /?" + query + b" HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    assert STATUS.findall(await answered_until_the_end(site, head)) == [status]


@pytest.mark.parametrize("beyond", [0, 1, 3_000])
async def test_more_headers_than_are_read_get_a_431(site: Site, beyond: int) -> None:
    headers = b"".join(b"X-%d: 1\r\n" % number for number in range(MAX_HEADERS - 2 + beyond))
    head = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n" + headers + b"\r\n"
    reply = await answered_until_the_end(site, head)
    assert STATUS.findall(reply) == [b"431" if beyond else b"200"]


@pytest.mark.parametrize("beyond", [0, 1, 5_000, 60_000])
@pytest.mark.parametrize("name", [b"X-Long", b"Cookie"])
@pytest.mark.parametrize("pieces", [1, 20])
async def test_headers_beyond_the_bound_get_a_431(
    site: Site, name: bytes, beyond: int, pieces: int
) -> None:
    least = b"Host: test\r\nConnection: close\r\n"
    left = MAX_HEADER_BYTES + beyond - len(least) - pieces * len(name + b": \r\n")
    lengths = [left // pieces] * (pieces - 1)
    lengths.append(left - sum(lengths))
    long = b"".join(name + b": " + b"x" * length + b"\r\n" for length in lengths)
    assert len(least + long) == MAX_HEADER_BYTES + beyond
    for before in (b"", GET):
        head = before + b"GET / HTTP/1.1\r\n" + least + long + b"\r\n"
        statuses = STATUS.findall(await answered_until_the_end(site, head))
        assert statuses[-1] == (b"431" if beyond else b"200")


async def test_cookies_are_not_read(site: Site) -> None:
    cookies = b"Cookie: a=b\r\n" * (2 * MAX_HEADERS)
    request = READS + b"Connection: close\r\n" + cookies + b"Content-Length: 2\r\n\r\n{}"
    assert STATUS.findall(await answered_until_the_end(site, request)) == [b"200"]
    [headers] = site.headers
    assert b"cookie" not in dict(headers)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(READS + b"Content-Length: 100\r\n\r\n{", id="body that is read"),
        pytest.param(b"GET / HTTP/1.1\r\nContent-Length: 100\r\n\r\n{", id="body nobody reads"),
        pytest.param(REFUSES + b"Content-Length: 100\r\n\r\n{", id="refused body"),
        pytest.param(READS + CHUNKED + b"0\r\na: ", id="trailer"),
        pytest.param(GET + b"GET / HT", id="second request"),
        pytest.param(b"\r\n", id="empty line"),
    ],
)
async def test_client_that_stops_within_a_request_is_hung_up_on(site: Site, head: bytes) -> None:
    started = time.monotonic()
    await answered_until_the_end(site, head)
    assert time.monotonic() - started < 4 * TIMEOUT_SECONDS


@pytest.mark.parametrize(
    ("head", "drip"),
    [
        pytest.param(REFUSES + CHUNKED, b"1\r\nx\r\n", id="refused body"),
        pytest.param(REFUSES + CHUNKED + b"0\r\n", b"a: 1\r\n", id="refused tail"),
        pytest.param(b"GET / HTTP/1.1\r\n" + CHUNKED, b"1\r\nx\r\n", id="body nobody reads"),
        pytest.param(GET, b"\r\n", id="empty lines"),
    ],
)
async def test_drip_does_not_keep_a_connection(site: Site, head: bytes, drip: bytes) -> None:
    reader, writer = await site.connect()
    writer.write(head)
    started = time.monotonic()

    async def keep_dripping() -> None:
        while True:
            writer.write(drip)
            await asyncio.sleep(TIMEOUT_SECONDS / 10)

    dripping = asyncio.create_task(keep_dripping())
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            assert (await reader.read()).startswith(b"HTTP/1.1 ")
    except ConnectionResetError:
        pass  # it came with the answer
    finally:
        dripping.cancel()
        writer.close()
    assert time.monotonic() - started < KEEP_ALIVE_SECONDS + 2 * TIMEOUT_SECONDS


async def test_refused_body_that_ends_keeps_the_connection(site: Site) -> None:
    body = b"x" * 300_000
    refused = REFUSES + b"Content-Length: %d\r\n\r\n" % len(body)
    last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    reply = await answered_until_the_end(site, refused, body, refused + body + last)
    assert [reply.count(b"HTTP/1.1 %d" % status) for status in (401, 200)] == [2, 1]


async def test_refused_client_that_expects_100_continue_is_hung_up_on(site: Site) -> None:
    """It will not send the body, for which its next request would be taken."""
    head = REFUSES + b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"
    started = time.monotonic()
    assert (await answered_until_the_end(site, head)).count(b"HTTP/1.1") == 1
    assert time.monotonic() - started < TIMEOUT_SECONDS


@pytest.mark.parametrize("request_", [READS + b"Content-Length: 2\r\n\r\n{}", GET + GET])
async def test_half_closed_connection_is_answered(site: Site, request_: bytes) -> None:
    started = time.monotonic()
    reply = await answered_until_the_end(site, request_, half_close=True)
    assert reply.count(b"200 OK") == request_.count(b"HTTP/1.1")
    assert time.monotonic() - started < TIMEOUT_SECONDS


async def test_half_closed_connection_is_answered_however_long_it_takes(site: Site) -> None:
    site.gate.clear()
    request = READS + b"Content-Length: 2\r\n\r\n{}"
    talking = asyncio.create_task(answered_until_the_end(site, request, half_close=True))
    await until(lambda: site.running == 1)
    await asyncio.sleep(3 * TIMEOUT_SECONDS)
    site.gate.set()
    reply = await talking
    assert (reply.count(b"HTTP/1.1 200 OK"), site.left) == (1, 0)


async def test_request_whose_client_has_left_is_cancelled(site: Site) -> None:
    """A client that has left and one that has only closed its sending side both send a FIN."""
    site.gate.clear()
    _, writer = await site.connect()
    writer.write(READS + b"Content-Length: 2\r\n\r\n{}")
    await until(lambda: site.running == 1)
    writer.close()
    await until(lambda: site.left == 1, 2.0)


@pytest.mark.parametrize("part", [b"GET / HT", READS + b"Content-Length: 9\r\n\r\n{", b""])
async def test_half_a_request_of_a_half_closed_connection_ends_it(site: Site, part: bytes) -> None:
    started = time.monotonic()
    assert await answered_until_the_end(site, part, half_close=True) == b""
    assert time.monotonic() - started < TIMEOUT_SECONDS


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"


@pytest.mark.parametrize(
    "framing", [b'Content-Length: 6\r\n\r\n{"a":1', CHUNKED + b'6\r\n{"a":1\r\n0\r\n\r\n']
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_wish_for_another_protocol_does_not_lose_the_body(
    site: Site, framing: bytes, size: int
) -> None:
    """As the default client of Java sends it with its first request."""
    last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    sent = READS + H2C + framing + READS + H2C + framing + last
    parts = [sent[start : start + size] for start in range(0, len(sent), size)]
    reply = await answered_until_the_end(site, *parts)
    assert reply.count(b"200 OK") == 3
    assert site.bodies == [b'{"a":1'] * 2
    for headers in site.headers:
        assert not {b"upgrade", b"http2-settings"} & dict(headers).keys()
        assert dict(headers)[b"content-type"] == b"application/json"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"CONNECT test:80 HTTP/1.1\r\nHost: test\r\n\r\n", 405),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ],
)
async def test_tunnels_and_other_protocols_are_refused(
    site: Site, request_: bytes, status: int
) -> None:
    reply = await answered_until_the_end(site, request_)
    assert reply.startswith(b"HTTP/1.1 %d " % status)
    assert b"application/problem+json" in reply


@pytest.mark.parametrize(
    ("line", "status"),
    [
        # An answer to it would have no status line, and no such client is left.
        (b"GET /", 400),
        (b"POST /read", 400),
        (b"GET / HTTP/0.9", 400),
        (b"GET / HTTP/1.0", 200),
        (b"GET / HTTP/2.0", 505),
        (b"GET / HTTP/1.2", 400),
        (b"GET / HTTP/3.0", 400),
        (b"GET / HTTP/1", 400),
        (b"GET / HTTP/1.10", 400),
        (b"GET / http/1.1", 400),
        (b"GET / ICE/1.0", 400),
        (b"get / HTTP/1.1", 400),
        (b"FOO / HTTP/1.1", 400),
        (b" GET / HTTP/1.1", 400),
        (b"\r\nGET / HTTP/1.1", 200),
        (b"GET\t/\tHTTP/1.1", 400),
        # A recipient may take several blanks for one (RFC 9112, 3).
        (b"GET  / HTTP/1.1", 200),
        (b"GET /  HTTP/1.1", 200),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET /\0 HTTP/1.1", 400),
        (b"GET /\xff HTTP/1.1", 400),
        # A proxy may compare it with its rules as a part of the path (CVE-2023-45539).
        (b"GET /#a HTTP/1.1", 400),
        (b"GET /?a#b HTTP/1.1", 400),
        (b"GET test HTTP/1.1", 400),
        (b"GET test:80 HTTP/1.1", 400),
        (b"GET ftp://test/ HTTP/1.1", 400),
        (b"GET http://user@test/ HTTP/1.1", 400),
        (b"GET http:/// HTTP/1.1", 400),
        (b"GET http://test HTTP/1.1", 200),
        (b"GET HTTP://test/ HTTP/1.1", 200),
    ],
)
async def test_request_line_is_answered_or_ends_the_connection(
    site: Site, line: bytes, status: int
) -> None:
    last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    request = line + b"\r\nHost: test\r\n\r\n"
    before = counter("http_requests_total", endpoint="other", status=str(status))
    reply = await answered_until_the_end(site, request + last)
    # HTTP/1.0 ends with its answer.
    is_last = status != 200 or line.endswith(b"1.0")
    assert STATUS.findall(reply) == [str(status).encode()] + [b"200"] * (not is_last)
    counted = counter("http_requests_total", endpoint="other", status=str(status)) - before
    assert counted == (status != 200)  # the app of this test counts nothing


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"X: 1\r\n 2", 400),  # obs-fold
        (b"Transfer-Encoding:\r\n chunked", 400),
        (b" X: 1", 400),
        (b"X : 1", 400),
        (b"Content-Length : 2", 400),
        (b"X", 400),
        (b": 1", 400),
        (b"X: \0", 400),
        (b"X: \x1b[31m", 400),
        (b"X: 1\rY: 2", 400),
        (b"X: 1\nY: 2", 400),
        (b"Content-Length: 2\r\nContent-Length: 2", 400),
        (b"Content-Length: 2\r\nContent-Length: 1", 400),
        (b"Content-Length: 2, 2", 400),
        (b"Content-Length: +2", 400),
        (b"Content-Length: 0x2", 400),
        (b"Content-Length: 2 2", 400),
        (b"Content-Length:", 400),
        (b"Content-Length: 18446744073709551618", 400),
        (b"Content-Length: " + b"2".zfill(20), 400),
        # Python makes no number of so many digits.
        (b"Content-Length: " + b"2".zfill(5_000), 400),
        (b"Content-Length: 2\r\nTransfer-Encoding: chunked", 400),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 2", 400),
        (b"Transfer-Encoding: \x0bchunked", 400),
        (b"Transfer-Encoding:", 400),
        # A proxy may have checked the one that is not read here.
        (b"Authorization: Bearer a\r\nAuthorization: Bearer b", 400),
        (b"Authorization: Bearer a\r\nauthorization: Bearer a", 400),
        (b"Content-Type: text/plain\r\nContent-Type: application/json", 400),
        (b"Idempotency-Key: a\r\nIdempotency-Key: b", 400),
    ],
)
async def test_ambiguous_header_ends_the_connection(site: Site, lines: bytes, status: int) -> None:
    """What follows may be a request to one reader, and a body to another."""
    reply = await answered_until_the_end(site, READS + lines + b"\r\n\r\n{}" + GET)
    assert STATUS.findall(reply) == [str(status).encode()]
    assert site.bodies == []


async def test_leading_zeros_of_a_length_do_not_count(site: Site) -> None:
    lines = b"Content-Length: " + b"2".zfill(19) + b"\r\nConnection: close\r\n\r\n"
    reply = await answered_until_the_end(site, READS + lines + b"{}")
    assert STATUS.findall(reply) == [b"200"]
    assert site.bodies == [b"{}"]


@pytest.mark.parametrize("blanks", [b"", b" ", b"\t", b" \t  "])
async def test_blanks_around_a_header_are_no_part_of_it(site: Site, blanks: bytes) -> None:
    lines = b"X:%sa b%s\r\nContent-Length:%s2%s\r\n" % ((blanks,) * 4)
    await answered_until_the_end(site, READS + lines + b"Connection: close\r\n\r\n{}")
    [headers] = site.headers
    assert (dict(headers)[b"x"], dict(headers)[b"content-length"]) == (b"a b", b"2")


@pytest.mark.parametrize("keep", [b"", b"Connection: keep-alive\r\n"])
async def test_http_1_0_has_no_chunks(site: Site, keep: bytes) -> None:
    request = READS.replace(b"1.1", b"1.0") + keep + CHUNKED + b"2\r\n{}\r\n0\r\n\r\n"
    reply = await answered_until_the_end(site, request + GET)
    assert STATUS.findall(reply) == [b"400"]
    assert site.bodies == []


@pytest.mark.parametrize(
    ("target", "host", "path"),
    [
        (b"http://other.test/read", b"other.test", b"/read"),
        (b"https://other.test:8443/read?a=b", b"other.test:8443", b"/read"),
        (b"http://[::1]:80/read", b"[::1]:80", b"/read"),
        (b"http://127.0.0.1/read?next=http://x/", b"127.0.0.1", b"/read"),
        (b"/read?next=http://x/", b"test", b"/read"),
        (b"/read?a://b", b"test", b"/read"),
    ],
)
async def test_address_in_the_target_replaces_the_host(
    site: Site, target: bytes, host: bytes, path: bytes
) -> None:
    """Otherwise the check of Host would look at another name than the request has."""
    request = JSON_POST % target + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
    reply = await answered_until_the_end(site, request)
    assert STATUS.findall(reply) == [b"200"]
    [headers] = site.headers
    assert [value for name, value in headers if name == b"host"] == [host]


async def test_websocket_is_not_opened(site: Site) -> None:
    wish = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: close\r\n\r\n"
    reply = await answered_until_the_end(site, b"GET / HTTP/1.1\r\nHost: test\r\n" + wish + key)
    assert reply.startswith(b"HTTP/1.1 200 OK")


async def test_requests_that_wait_for_an_answer_take_no_memory(site: Site) -> None:
    site.gate.clear()
    _, writer = await site.connect()
    writer.write(READS + b"Content-Length: 2\r\n\r\n{}")
    await until(lambda: site.running == 1)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        waiting = asyncio.create_task(write_without_end(writer))
        await asyncio.sleep(1)
        waiting.cancel()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        writer.transport.abort()
        site.gate.set()
    assert after - before < 8 * MIB


async def write_without_end(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"GET / HTTP/1.1\r\n\r\n" * 10_000)
        await writer.drain()


async def test_many_requests_at_once_are_answered_in_turn(site: Site) -> None:
    many = 3_000
    reply = await answered_until_the_end(
        site, b"GET / HTTP/1.1\r\n\r\n" * many + READS + b"Content-Length: 2\r\n\r\n{}",
        GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
    )  # fmt: skip
    assert reply.count(b"200 OK") == many + 2
    assert site.bodies == [b"{}"]


async def test_client_that_takes_no_answer_is_hung_up_on(site: Site) -> None:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.connect(("127.0.0.1", site.port))
    reader, writer = await asyncio.open_connection(sock=client, limit=1)
    writer.write(GET.replace(b"/", b"/large", 1))
    await reader.readexactly(1)  # it takes no more: its buffer is full
    await asyncio.sleep(3 * TIMEOUT_SECONDS)
    taken = 0
    with suppress(ConnectionError):
        async with asyncio.timeout(WAIT_SECONDS):
            while part := await reader.read(MIB):
                taken += len(part)
    assert taken < 32 * MIB
    writer.close()


STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
WITH_BODY = READS + b"Content-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    "rest",
    [
        b"XXXX\r\n\r\n",
        b"\x16\x03\x01\x00\xa5",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\nHost: test\n\n",
        b"GET / HTTP/1.1\r\nHost: test\r\nContent-Length: -1\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: test\r\n\r\n",
    ],
)
@pytest.mark.parametrize("before", [GET, WITH_BODY, WITH_BODY + GET, GET + WITH_BODY + WITH_BODY])
@pytest.mark.parametrize("half_close", [False, True])
async def test_requests_before_what_cannot_be_read_are_answered(
    site: Site, rest: bytes, before: bytes, *, half_close: bool
) -> None:
    reply = await answered_until_the_end(site, before + rest, half_close=half_close)
    statuses = [status for status in STATUS.findall(reply) if status != b"100"]
    assert statuses == [b"200"] * before.count(b"Host:") + [b"400"]


async def test_what_follows_unreadable_bytes_is_dropped(site: Site) -> None:
    site.gate.clear()
    talking = asyncio.create_task(answered_until_the_end(site, WITH_BODY + b"XXXX\r\n\r\n", GET))
    await until(lambda: site.running == 1)
    await asyncio.sleep(2 * TIMEOUT_SECONDS)  # the slow answer is not cut off
    site.gate.set()
    reply = await talking
    assert reply.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 400 " in reply


@pytest.mark.parametrize(
    ("coding", "status"),
    [
        (b"chunked", 200),
        (b"Chunked", 200),
        (b" chunked ", 200),
        (b"gzip, chunked", 501),
        (b"gzip,chunked", 501),
        (b"identity, chunked", 501),
        (b"deflate, chunked", 501),
        (b"x, chunked", 501),
        (b", chunked", 501),
        (b"gzip\r\nTransfer-Encoding: chunked", 501),
        (b"chunked, gzip", 400),
        (b"gzip", 501),
        (b"identity", 501),
        (b"chunked, chunked", 400),
    ],
)
@pytest.mark.parametrize("before", [b"", GET, WITH_BODY])
async def test_body_of_another_coding_than_chunks_is_not_read(
    site: Site, coding: bytes, status: int, before: bytes
) -> None:
    last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    request = READS + b"Transfer-Encoding: " + coding + b"\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + last
    reply = await answered_until_the_end(site, before + request)
    expected = [b"200", b"200"] if status == 200 else [str(status).encode()]
    assert STATUS.findall(reply) == [b"200"] * (before != b"") + expected
    assert site.bodies == [b"{}"] * ((before == WITH_BODY) + (status == 200))


async def test_connection_past_the_bound_is_closed_and_one_after_it_is_answered(site: Site) -> None:
    open_ones = [await site.connect() for _ in range(MAX_CONNECTIONS)]
    refused, writer = await site.connect()
    assert await refused.read() == b""
    writer.close()
    reader, writer = open_ones.pop()
    writer.write(GET)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    await writer.wait_closed()

    async def answered() -> bool:
        reader, writer = await site.connect()
        writer.write(GET)
        try:
            return (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        except ConnectionResetError:
            return False
        finally:
            writer.close()

    deadline = time.monotonic() + WAIT_SECONDS
    while not await answered():
        assert time.monotonic() < deadline
    for _, writer in open_ones:
        writer.close()
