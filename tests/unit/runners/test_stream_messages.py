"""Peers that answer or call badly over a stream, or not at all."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import cast

import pytest
from bentoml.exceptions import BentoMLException, ServiceUnavailable

from runners import wire
from runners.framing import MAX_UNSENT_BYTES, FrameReader, FrameTooLarge, FrameWriter, frame
from runners.stream import StreamRunner
from runners.transport import CONNECTION_FAILURES, RUNNER_FAILURES, BadReply
from tests.unit.runners.stream_hosts import MAX_BYTES, ONE, WAIT_SECONDS, Host, calling, classify
from tests.waiting import until

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: sentiment-runner/1\r\n\r\n"

NO_NUMBER = replace(ONE, scores={"positive": math.nan})
IMPOSSIBLE = replace(ONE, scores={"negative": 1.0, "positive": 1.0})
TOO_LONG = "a" * (wire.MAX_TEXT_CHARACTERS + 1)


@pytest.fixture
def host() -> Host:
    return Host()


def reply(message: wire.StreamMessage) -> bytes:
    return frame(wire.encode_streamed(message))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", CONNECTION_FAILURES),
        (b"HTTP/1.1 101 Switching", CONNECTION_FAILURES),
        (b"x" * 70_000, RUNNER_FAILURES),
        (SWITCHED + b"\xff\xff\xff\xff", BadReply),
        (SWITCHED + b"\0\0\0\1\xc1", BadReply),
        (SWITCHED + b"\0\0\0\0", BadReply),
        (SWITCHED + reply(wire.StreamCancel(0)), BadReply),
        (SWITCHED + reply(wire.StreamResults(0, [])), BadReply),
        (SWITCHED + reply(wire.StreamResults(0, [ONE, ONE])), BadReply),
        (SWITCHED + reply(wire.StreamResults(0, [IMPOSSIBLE])), BadReply),
        (SWITCHED + reply(wire.StreamResults(0, [replace(ONE, windows=0)])), BadReply),
        (SWITCHED + reply(wire.StreamRefusal(0, 503, "full")), ServiceUnavailable),
        (SWITCHED + reply(wire.StreamResults(7, [ONE])), CONNECTION_FAILURES),
        (SWITCHED + reply(wire.StreamEnd(0)), CONNECTION_FAILURES),
        (SWITCHED + reply(wire.StreamResults(0, [ONE]))[:-1], CONNECTION_FAILURES),
    ],
    ids=[
        "nothing", "half-a-head", "no-http", "huge-frame", "no-message", "empty-frame",
        "other-kind", "too-few", "too-many",
        "impossible-scores", "no-window", "refused", "of-no-call", "ends", "cut-off",
    ],
)  # fmt: skip
async def test_unusable_answer_raises_a_failure_that_is_known(
    answer: bytes, error: type[Exception] | tuple[type[Exception], ...]
) -> None:
    async with answering(answer) as url:
        runner = StreamRunner(url)
        with pytest.raises(error):
            await classify(runner, seconds=2.0)
        await runner.close()


async def test_answer_that_cannot_be_read_fails_its_own_call_alone() -> None:
    async with answering(
        SWITCHED + reply(wire.StreamResults(0, [NO_NUMBER])) + reply(wire.StreamResults(1, [ONE]))
    ) as url:
        runner = StreamRunner(url)
        results = await asyncio.gather(
            classify(runner, seconds=2.0), classify(runner, seconds=2.0), return_exceptions=True
        )
        assert isinstance(results[0], BadReply)
        assert results[1] == [ONE]
        await runner.close()


async def test_text_that_a_model_gives_no_number_for_fails_no_other(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    async with host.running() as url:
        runner = StreamRunner(url)
        one, other = calling(runner), calling(runner)
        await until(lambda: len(host.queue.answers) == 2)
        host.queue.answers[0].set_result([NO_NUMBER])
        with pytest.raises(BentoMLException, match="the reply is 500"):
            await one
        host.queue.answers[1].set_result([ONE])
        assert await other == [ONE]
        await runner.close()
    assert "the model gives no probabilities for a text" in caplog.text


async def test_stream_that_its_host_ends_and_keeps_open_is_closed() -> None:
    closed = asyncio.Event()

    class Clinging(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast("asyncio.Transport", transport)

        def data_received(self, _data: bytes) -> None:
            self.transport.write(SWITCHED + reply(wire.StreamEnd(0)))

        def connection_lost(self, _error: Exception | None) -> None:
            closed.set()

    server = await asyncio.get_running_loop().create_server(Clinging, "127.0.0.1", 0)
    async with server:
        runner = StreamRunner(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(CONNECTION_FAILURES):
            await classify(runner, seconds=2.0)
        async with asyncio.timeout(WAIT_SECONDS):
            await closed.wait()
        await runner.close()


async def test_peer_that_takes_nothing_is_hung_up_on() -> None:
    loop = asyncio.get_running_loop()
    lost, ended = asyncio.Event(), asyncio.Event()
    deaf: list[asyncio.Transport] = []

    class Deaf(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            deaf.append(cast("asyncio.Transport", transport))
            deaf[0].pause_reading()

        def connection_lost(self, _error: Exception | None) -> None:
            ended.set()

    class Caller(asyncio.Protocol):
        def connection_lost(self, _error: Exception | None) -> None:
            lost.set()

    async with await loop.create_server(Deaf, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        transport, _ = await loop.create_connection(Caller, "127.0.0.1", port)
        writer, message = FrameWriter(transport), bytes(1 << 20)
        sent = 0
        while not lost.is_set():
            writer.send(message)
            sent += len(message)
            assert sent < 2 * MAX_UNSENT_BYTES
            await asyncio.sleep(0)
        assert sent > MAX_UNSENT_BYTES
        deaf[0].abort()
        await ended.wait()


class Peer(asyncio.Protocol):
    """Sends the head of its answer for a wish, the rest for what comes next, and hangs up."""

    def __init__(self, answer: bytes) -> None:
        head, end, rest = answer.partition(b"\r\n\r\n")
        self.answers = [head + end, rest] if answer.startswith(SWITCHED) else [answer]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, _data: bytes) -> None:
        self.transport.write(self.answers.pop(0))
        if not self.answers:
            self.transport.close()


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    server = await asyncio.get_running_loop().create_server(lambda: Peer(answer), "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


WISH = (
    b"GET /stream HTTP/1.1\r\nHost: runner\r\nConnection: keep-alive, Upgrade\r\n"
    b"Upgrade: sentiment-runner/1\r\n\r\n"
)


@asynccontextmanager
async def raw_stream(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A stream that is opened by hand."""
    async with connected(url) as (reader, writer):
        writer.write(WISH)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        yield reader, writer


async def end_of(reader: asyncio.StreamReader) -> bytes:
    """What comes until the stream ends, in order or not."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


def numbered(number: int) -> bytes:
    return frame(wire.encode_streamed(wire.StreamCall(number, ["a"], 5.0, "interactive")))


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff\xff\xff\xff",
        frame(b""),
        frame(b"\x91" * 10_000),
        frame(wire.encode(wire.Classify(["a"], 5.0, "bulk"))),
        frame(wire.encode_streamed(wire.StreamResults(0, [ONE]))),
        frame(wire.encode_streamed(wire.StreamCall(0, [], 5.0, "bulk"))),
        frame(wire.encode_streamed(wire.StreamCall(-1, ["a"], 5.0, "bulk"))),
        frame(wire.encode_streamed(wire.StreamCall(0, [TOO_LONG], 5.0, "bulk"))),
        frame(wire.encode_streamed(wire.StreamCall(0, ["a"], float("nan"), "bulk"))),
        numbered(3) + numbered(3),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=[
        "huge", "empty", "nested", "http-message", "reply", "no-texts", "negative", "long-text",
        "nan", "number-twice", "http",
    ],
)  # fmt: skip
async def test_malformed_message_ends_its_stream_and_no_other(
    host: Host, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with host.running() as url:
        runner = StreamRunner(url)
        other = calling(runner)
        await until(lambda: len(host.queue.answers) == 1)
        with caplog.at_level(logging.WARNING):
            async with raw_stream(url) as (reader, writer), asyncio.timeout(WAIT_SECONDS):
                writer.write(sent)
                assert await end_of(reader) == b""
        assert "a stream is ended: " in caplog.text
        assert all(answer.cancelled() for answer in host.queue.answers[1:])
        host.queue.answers[0].set_result([ONE])
        assert await other == [ONE]
        await runner.close()


@pytest.mark.parametrize("size", [1, 3, 1_000])
async def test_message_may_come_in_any_pieces(host: Host, size: int) -> None:
    host.queue.result = ONE
    async with host.running() as url, raw_stream(url) as (reader, writer):
        sent = numbered(1) + numbered(2)
        for start in range(0, len(sent), size):
            writer.write(sent[start : start + size])
            await asyncio.sleep(0)
        frames = FrameReader(MAX_BYTES)
        replies: list[bytes] = []
        while len(replies) < 2:
            replies += frames.feed(await reader.read(7))
        assert [wire.decode_stream_reply(each).number for each in replies] == [1, 2]


@pytest.mark.parametrize(
    "headers",
    [
        "",
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: sentiment-runner/2\r\n",
        "Upgrade: sentiment-runner/1\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: sentiment-runner/1\r\n",
    ],
)
async def test_request_for_another_protocol_is_plain_http(host: Host, headers: str) -> None:
    async with host.running() as url, connected(url) as (reader, writer):
        writer.write(f"GET /stream HTTP/1.1\r\nHost: runner\r\n{headers}\r\n".encode())
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 404 ")


async def test_wish_that_another_request_follows_at_once_is_not_heard(host: Host) -> None:
    async with host.running() as url, connected(url) as (reader, writer):
        writer.write(WISH + b"GET / HTTP/1.1\r\nHost: runner\r\n\r\n")
        async with asyncio.timeout(WAIT_SECONDS):
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 404 ")
    assert host.queue.texts == []


def test_frame_reader_takes_the_largest_message_and_no_larger() -> None:
    whole = frame(b"a" * 10)
    assert FrameReader(10).feed(whole + whole[:4]) == [b"a" * 10]
    with pytest.raises(FrameTooLarge, match="11 bytes; at most 10"):
        FrameReader(10).feed(frame(b"a" * 11)[:4])
