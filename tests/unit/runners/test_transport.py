"""The HTTP client of a runner host, against a server that sends given bytes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from bentoml.exceptions import BentoMLException, ServiceUnavailable

from core.types import Classification, DesiredModel
from runners import wire
from runners.transport import (
    CONNECTION_FAILURES,
    MAX_REPLY_BYTES,
    RUNNER_FAILURES,
    BadReply,
    CallLost,
    HttpRunner,
)
from tests.unit.fakes import runner_description
from tests.unit.tiny_server import TinyServer, response
from tests.waiting import until

OURS = f"Content-Type: {wire.CONTENT_TYPE}\r\n"
WAIT_SECONDS = 10.0
ONE = Classification("r", "e", {"positive": 1.0}, 3, truncated=False)
DESCRIPTION = runner_description(engine="e", tag="m:1")
IMPOSSIBLE = Classification("r", "e", {"negative": 1.0, "positive": 1.0}, 3, truncated=False)
RESULTS = response(body=wire.encode(wire.Results([ONE])), headers=OURS)
DESCRIBED = response(body=wire.encode(DESCRIPTION), headers=OURS)


@asynccontextmanager
async def runner_that(
    answer: Callable[[int], bytes], key: str | None = None
) -> AsyncIterator[tuple[HttpRunner, TinyServer]]:
    async with TinyServer(answer).running() as server:
        runner = HttpRunner(server.url, key)
        try:
            yield runner, server
        finally:
            await runner.close()


async def classify(runner: HttpRunner) -> list[Classification]:
    return await runner.classify(["a text"], WAIT_SECONDS, "interactive")


async def test_calls_carry_messages_the_key_and_their_route() -> None:
    answers = [RESULTS, DESCRIBED, DESCRIBED]
    async with runner_that(lambda n: answers[n - 1], key="the key") as (runner, server):
        assert await classify(runner) == [ONE]
        assert await runner.describe() == DESCRIPTION
        assert await runner.load(DesiredModel("m:2", 5)) == DESCRIPTION
    routes = [head.split("\r\n")[0] for head in server.heads]
    assert routes == [f"POST /{name} HTTP/1.1" for name in ("classify", "describe", "load")]
    for head in server.heads:
        assert OURS.strip() in head.split("\r\n")
        assert "X-Runner-Key: the key" in head
    sent = wire.decode(server.bodies[0], wire.Classify)
    assert sent == wire.Classify(["a text"], WAIT_SECONDS, "interactive")
    assert wire.decode(server.bodies[2], DesiredModel) == DesiredModel("m:2", 5)


async def test_call_without_a_key_has_no_key_header() -> None:
    async with runner_that(lambda _: RESULTS) as (runner, server):
        await classify(runner)
    assert "X-Runner-Key" not in server.heads[0]


async def test_connection_is_kept_for_more_requests_than_bentomls_client_allows() -> None:
    async with runner_that(lambda _: RESULTS) as (runner, server):
        for _ in range(250):
            await classify(runner)
        assert server.connections == 1


async def test_many_calls_at_once_are_all_answered_over_few_connections() -> None:
    async with runner_that(lambda _: RESULTS) as (runner, server):
        results = await asyncio.gather(*(classify(runner) for _ in range(300)))
        assert results == [[ONE]] * 300
        assert server.connections <= 100


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (response(503, b"70 texts wait already"), ServiceUnavailable, "70 texts wait already"),
        (response(403, b"RUNNER_KEY is another one"), BentoMLException, "403: RUNNER_KEY"),
        (response(400, b"wire version 2"), BentoMLException, "400: wire version 2"),
        (response(500, b"\xff" * 100_000), BentoMLException, "500"),
        (response(302, b"", "Location: http://127.0.0.1:9/\r\n"), BentoMLException, "302"),
        (response(200, b"{}", "Content-Type: application/json\r\n"), BadReply, "application/json"),
        (response(200, b"\x80\x04.", "Content-Type: application/vnd.bentoml+pickle\r\n"),
         BadReply, "pickle"),
        (response(200, b"\x80\x04."), BadReply, "not application/vnd.sentiment"),
        (response(200, RESULTS.split(b"\r\n\r\n", 1)[1][:-1], OURS), BadReply, "truncated"),
        (response(200, b"\x81\xacwire_version\x02", OURS), BadReply, "version 2.* speaks 1"),
        (response(200, wire.encode(wire.Results([])), OURS), BadReply, "0 results .* 1 text"),
        (response(200, wire.encode(wire.Results([ONE] * 2)), OURS), BadReply, "2 results"),
        (response(200, wire.encode(wire.Results([IMPOSSIBLE])), OURS), BadReply, "add up to 1"),
        (f"HTTP/1.1 200 OK\r\n{OURS}Content-Length: {MAX_REPLY_BYTES + 1}\r\n\r\n".encode(),
         BadReply, f"{MAX_REPLY_BYTES + 1} bytes"),
        (f"HTTP/1.1 200 OK\r\n{OURS}Transfer-Encoding: chunked\r\n\r\n".encode(),
         BadReply, "None bytes"),
    ],
    ids=range(15),
)  # fmt: skip
async def test_unusable_reply_raises_a_named_failure(
    answer: bytes, error: type[Exception], message: str
) -> None:
    async with runner_that(lambda _: answer) as (runner, _):
        with pytest.raises(error, match=message) as caught:
            await classify(runner)
        assert isinstance(caught.value, RUNNER_FAILURES)
        assert not isinstance(caught.value, CONNECTION_FAILURES)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\n", RESULTS[:-3]], ids=["at-once", "in-headers", "in-body"]
)
async def test_connection_that_breaks_while_the_runner_has_the_texts_loses_the_call(
    answer: bytes,
) -> None:
    async with runner_that(lambda _: answer) as (runner, server):
        call = asyncio.create_task(classify(runner))
        await until(lambda: bool(server.bodies))
        server.hang_up()
        with pytest.raises(CallLost):
            await call


async def test_reply_that_is_not_http_raises_a_failure() -> None:
    async with runner_that(lambda _: b"nonsense\r\n\r\n") as (runner, _):
        with pytest.raises(RUNNER_FAILURES):
            await classify(runner)


async def test_call_to_an_absent_server_raises_a_connection_failure() -> None:
    async with TinyServer(lambda _: b"").running() as server:
        url = server.url
    for gone in (url, url.replace("http:", "tcp:"), "file:///no/such.sock", "unix:/no/such.sock"):
        runner = HttpRunner(gone)
        with pytest.raises(aiohttp.ClientConnectionError) as refusal:
            await classify(runner)
        assert not isinstance(refusal.value, CallLost)
        await runner.close()


async def test_call_times_out_when_the_runner_does_not_answer() -> None:
    async with runner_that(lambda _: b"HTTP/1.1 200 OK\r\n") as (runner, _):
        async with asyncio.timeout(WAIT_SECONDS):
            with pytest.raises(TimeoutError):
                await runner.classify(["a"], 0.05, "bulk")


async def test_call_without_time_left_is_not_sent() -> None:
    async with runner_that(lambda _: RESULTS) as (runner, server):
        with pytest.raises(TimeoutError):
            await runner.classify(["a"], 0.0, "bulk")
        assert server.heads == []


async def test_cancelled_call_closes_its_connection_and_the_next_opens_another() -> None:
    def answer(n: int) -> bytes:
        return b"HTTP/1.1 200 OK\r\n" if n == 1 else RESULTS

    async with runner_that(answer) as (runner, server):
        call = asyncio.create_task(classify(runner))
        await until(lambda: bool(server.bodies))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        async with asyncio.timeout(WAIT_SECONDS):
            await server.first_ended.wait()
        assert await classify(runner) == [ONE]
        assert server.connections == 2


async def test_repeated_refusal_is_logged_once_until_a_call_succeeds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = response(400, b"the message has wire version 1, and this process speaks 2")
    answers = [other, other, other, DESCRIBED, other]
    with caplog.at_level(logging.ERROR, "bentoml.sentiment.runner"):
        async with runner_that(lambda n: answers[n - 1]) as (runner, server):
            for answer in answers:
                if answer is DESCRIBED:
                    await runner.describe()
                else:
                    with pytest.raises(BentoMLException):
                        await runner.describe()
    refusal = "the message has wire version 1, and this process speaks 2"
    line = f"runner {server.url}: the reply is 400: {refusal}"
    assert [record.message for record in caplog.records] == [line, line]


@pytest.mark.parametrize("scheme", ["file://", "unix://", "unix:"])
async def test_call_to_a_unix_socket_is_answered(scheme: str, tmp_path: Path) -> None:
    path = tmp_path / "a runner.sock"
    async with TinyServer(lambda _: RESULTS).running(path):
        runner = HttpRunner(f"{scheme}{str(path).replace(' ', '%20')}")
        assert await classify(runner) == [ONE]
        await runner.close()


async def test_path_of_the_url_comes_before_the_route() -> None:
    async with TinyServer(lambda _: RESULTS).running() as server:
        runner = HttpRunner(f"{server.url}/behind/")
        assert await classify(runner) == [ONE]
        await runner.close()
    assert server.heads[0].startswith("POST /behind/classify ")
