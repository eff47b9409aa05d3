"""Calls over a stream: a real server, and peers that answer badly or not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

import pytest
import uvicorn
from bentoml.exceptions import BentoMLException, InvalidArgument, ServiceUnavailable
from starlette.responses import PlainTextResponse

from core.types import Classification
from runners import stream as stream_module
from runners import wire
from runners.endpoints import Answers, RunnerEndpoints, RunnerKeyMiddleware
from runners.framing import FrameReader, FrameTooLarge, frame
from runners.lanes import Lane
from runners.stream import StreamLost, StreamRunner
from runners.transport import CONNECTION_FAILURES, RUNNER_FAILURES, BadReply
from serving.http_protocol import BoundedHttpProtocol
from tests.serving import free_port
from tests.unit.runners.streams import FakeQueue
from tests.unit.tiny_server import TinyServer, response
from tests.waiting import until

WAIT_SECONDS = 10.0
MAX_BYTES = 100_000
ONE = Classification("r", "e", {"positive": 1.0}, 3, truncated=False)
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: sentiment-runner/1\r\n\r\n"
HTTP_RESULTS = response(
    body=wire.encode(wire.Results([ONE])), headers=f"Content-Type: {wire.CONTENT_TYPE}\r\n"
)


class Host:
    """A runner host on a real server, whose queue is the test's."""

    def __init__(self, keys: tuple[str, ...] = ()) -> None:
        self.queue = FakeQueue()
        self.posts = 0
        endpoints = RunnerEndpoints(
            PlainTextResponse("BentoML", status_code=404),
            lambda: Answers({"/classify": self._post}, lambda: self.queue),
            MAX_BYTES,
        )
        self.app = RunnerKeyMiddleware(endpoints, keys)
        self.server: uvicorn.Server

    async def _post(self, body: bytes) -> bytes:
        self.posts += 1
        return wire.encode(wire.Results([ONE] * len(wire.decode(body, wire.Classify).texts)))

    @property
    def connections(self) -> int:
        return len(self.server.server_state.connections)

    @asynccontextmanager
    async def running(self, path: Path | None = None) -> AsyncIterator[str]:
        """The URL on which it serves: a port of its own, or the Unix socket at `path`."""
        port = free_port()
        self.server = uvicorn.Server(
            uvicorn.Config(
                self.app,
                port=port,
                uds=str(path) if path is not None else None,
                http=BoundedHttpProtocol,
                interface="asgi3",
                lifespan="off",
                log_config=None,
            )
        )
        serving = asyncio.create_task(self.server.serve())
        await until(lambda: self.server.started)
        try:
            yield f"http://127.0.0.1:{port}" if path is None else f"unix:{path}"
        finally:
            self.server.should_exit = True
            await serving


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
async def runner(host: Host) -> AsyncIterator[StreamRunner]:
    async with host.running() as url:
        runner = StreamRunner(url)
        yield runner
        await runner.close()


async def classify(
    runner: StreamRunner, *texts: str, seconds: float = WAIT_SECONDS, lane: Lane = "interactive"
) -> list[Classification]:
    return await runner.classify(list(texts or ("a text",)), seconds, lane)


def calling(runner: StreamRunner, *texts: str) -> asyncio.Task[list[Classification]]:
    return asyncio.create_task(classify(runner, *texts))


async def test_calls_share_one_connection_and_are_answered_in_any_order(
    host: Host, runner: StreamRunner
) -> None:
    calls = [calling(runner, f"{number}", f"{number}") for number in range(300)]
    await until(lambda: len(host.queue.answers) == 300)
    assert host.queue.texts == [[f"{number}"] * 2 for number in range(300)]
    results = [
        [Classification(f"r{number}", "e", {"positive": 1.0}, 3, truncated=False)] * 2
        for number in range(300)
    ]
    for answer, result in [*zip(host.queue.answers, results, strict=True)][::-1]:
        answer.set_result(result)
    assert await asyncio.gather(*calls) == results
    assert (host.connections, host.posts) == (1, 0)


async def test_call_carries_its_texts_time_and_lane(host: Host, runner: StreamRunner) -> None:
    host.queue.result = ONE
    texts = ["", "a" * 5_000, "\N{GRINNING FACE}", "\0\r\n\r\n"]
    assert await classify(runner, *texts, seconds=7.5, lane="bulk") == [ONE] * 4
    assert host.queue.texts == [texts]
    assert host.queue.lanes == ["bulk"]
    assert 7 < host.queue.timeouts[0] <= 7.5


async def test_stream_over_a_unix_socket(host: Host, tmp_path: Path) -> None:
    host.queue.result = ONE
    async with host.running(tmp_path / "runner.sock") as url:
        runner = StreamRunner(url)
        assert await classify(runner) == [ONE]
        await runner.close()
    assert host.posts == 0


async def test_cancelled_call_is_not_computed_and_the_stream_goes_on(
    host: Host, runner: StreamRunner
) -> None:
    call, other = calling(runner, "dropped"), calling(runner, "kept")
    await until(lambda: len(host.queue.answers) == 2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(host.queue.answers[0].cancelled)
    host.queue.answers[1].set_result([ONE])
    assert await other == [ONE]
    assert host.connections == 1


async def test_call_times_out_and_is_not_computed(host: Host, runner: StreamRunner) -> None:
    with pytest.raises(TimeoutError):
        await classify(runner, seconds=0.05)
    await until(host.queue.answers[0].cancelled)
    with pytest.raises(TimeoutError):
        await classify(runner, seconds=0.0)
    assert len(host.queue.answers) == 1


async def test_answer_that_comes_after_its_call_was_cancelled_is_dropped(
    host: Host, runner: StreamRunner
) -> None:
    call = calling(runner)
    await until(lambda: len(host.queue.answers) == 1)
    host.queue.answers[0].set_result([ONE])
    call.cancel()
    host.queue.result = ONE
    assert await classify(runner) == [ONE]


@pytest.mark.parametrize(
    ("error", "raised", "says"),
    [
        (ServiceUnavailable("70 texts wait already"), ServiceUnavailable, "70 texts wait already"),
        (InvalidArgument("secret"), BentoMLException, "400: An unexpected error"),
        (ValueError("secret"), BentoMLException, "500: An unexpected error"),
    ],
)
async def test_failed_call_raises_a_named_failure_and_shows_no_internals(
    host: Host, runner: StreamRunner, error: Exception, raised: type[Exception], says: str
) -> None:
    call = calling(runner)
    await until(lambda: len(host.queue.answers) == 1)
    host.queue.answers[0].set_exception(error)
    with pytest.raises(raised, match=says) as caught:
        await call
    assert isinstance(caught.value, RUNNER_FAILURES)
    assert not isinstance(caught.value, CONNECTION_FAILURES)
    assert "secret" not in str(caught.value)
    host.queue.result = ONE
    assert await classify(runner) == [ONE]


async def test_full_queue_refuses_a_call(host: Host, runner: StreamRunner) -> None:
    host.queue.refusal = ServiceUnavailable("70 texts wait already")
    with pytest.raises(ServiceUnavailable, match="503: 70 texts wait already"):
        await classify(runner)


async def test_caller_that_hangs_up_gets_nothing_computed(host: Host, runner: StreamRunner) -> None:
    call = calling(runner)
    await until(lambda: len(host.queue.answers) == 1)
    runner.hang_up()
    with pytest.raises(StreamLost):
        await call
    await until(host.queue.answers[0].cancelled)
    await until(lambda: host.connections == 0)
    host.queue.result = ONE
    assert await classify(runner) == [ONE]


async def test_host_that_stops_answers_what_it_has_and_takes_no_more(host: Host) -> None:
    async with host.running() as url:
        runner = StreamRunner(url)
        call = calling(runner)
        await until(lambda: len(host.queue.answers) == 1)
        host.server.should_exit = True

        async def is_refused() -> bool:
            try:
                await classify(runner, "another", seconds=0.2)
            except CONNECTION_FAILURES:
                return True
            except TimeoutError:
                return False
            raise AssertionError

        async with asyncio.timeout(WAIT_SECONDS):
            while not await is_refused():
                pass
        host.queue.answers[0].set_result([ONE])
        assert await call == [ONE]
    await runner.close()


async def test_host_that_comes_back_gets_a_new_stream(host: Host) -> None:
    host.queue.result = ONE
    async with host.running() as url:
        runner = StreamRunner(url)
        assert await classify(runner) == [ONE]
    with pytest.raises(CONNECTION_FAILURES):
        await classify(runner)
    await runner.close()


async def test_attempt_to_open_is_shared_and_outlives_the_caller_that_began_it(
    host: Host, runner: StreamRunner
) -> None:
    host.queue.result = ONE
    first, second = calling(runner), calling(runner)
    await asyncio.sleep(0)
    first.cancel()
    assert await second == [ONE]
    assert host.connections == 1


@pytest.mark.parametrize("keys", [("the key",), ("another", "the key")])
async def test_stream_needs_the_key(keys: tuple[str, ...]) -> None:
    host = Host(keys)
    host.queue.result = ONE
    async with host.running() as url:
        for key, is_let_in in [("the key", True), ("wrong", False), (None, False)]:
            runner = StreamRunner(url, key)
            if is_let_in:
                assert await classify(runner) == [ONE]
            else:
                with pytest.raises(BentoMLException, match="403: RUNNER_KEY"):
                    await classify(runner)
            await runner.close()
    assert len(host.queue.texts) == 1


async def test_host_of_an_older_release_gets_http_calls_and_is_asked_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    older = response(404, b"A runner has no such route")
    answers = {"GET": older, "POST": HTTP_RESULTS}
    server = TinyServer(lambda n: answers[server.heads[n - 1].split()[0]])
    async with server.running():
        runner = StreamRunner(server.url)
        for _ in range(3):
            assert await classify(runner) == [ONE]
        methods = [head.split()[0] for head in server.heads]
        assert methods == ["GET", "POST", "POST", "POST"]
        monkeypatch.setattr(stream_module, "REFUSED_SECONDS", 0.0)
        other = StreamRunner(server.url)
        assert await classify(other) == [ONE]
        assert await classify(other) == [ONE]
        assert [head.split()[0] for head in server.heads[4:]] == ["GET", "POST", "GET", "POST"]
        await runner.close()
        await other.close()


async def test_wish_for_a_stream_is_an_http_request() -> None:
    async with TinyServer(lambda _: response(404)).running() as server:
        runner = StreamRunner(f"{server.url}/behind/", "the key")
        with pytest.raises(BentoMLException):
            await classify(runner)
        await runner.close()
    wish = server.heads[0].split("\r\n")
    assert wish[0] == "GET /behind/stream HTTP/1.1"
    assert {"Upgrade: sentiment-runner/1", "Connection: Upgrade", "X-Runner-Key: the key"} < {*wish}
    assert f"Host: {server.url.removeprefix('http://')}" in wish


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
        (SWITCHED + reply(wire.StreamRefusal(0, 503, "full")), ServiceUnavailable),
        (SWITCHED + reply(wire.StreamResults(7, [ONE])), CONNECTION_FAILURES),
        (SWITCHED + reply(wire.StreamEnd(0)), CONNECTION_FAILURES),
        (SWITCHED + reply(wire.StreamResults(0, [ONE]))[:-1], CONNECTION_FAILURES),
    ],
    ids=[
        "nothing", "half-a-head", "no-http", "huge-frame", "no-message", "empty-frame",
        "other-kind", "too-few", "too-many", "refused", "of-no-call", "ends", "cut-off",
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
        frame(wire.encode_streamed(wire.StreamCall(0, ["a" * 5_001], 5.0, "bulk"))),
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
