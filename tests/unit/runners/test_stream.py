"""Calls over a stream to a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from bentoml.exceptions import BentoMLException, InvalidArgument, ServiceUnavailable

from core.types import Classification
from runners import stream as stream_module
from runners import wire
from runners.stream import DEAD_AFTER, StreamLost, StreamRunner
from runners.transport import CONNECTION_FAILURES, RUNNER_FAILURES, CallLost
from tests.unit.runners.relay import Relay
from tests.unit.runners.stream_hosts import ONE, WAIT_SECONDS, Host, calling, classify
from tests.unit.tiny_server import TinyServer, response
from tests.waiting import until

HTTP_RESULTS = response(
    body=wire.encode(wire.Results([ONE])), headers=f"Content-Type: {wire.CONTENT_TYPE}\r\n"
)


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
async def runner(host: Host) -> AsyncIterator[StreamRunner]:
    async with host.running() as url:
        runner = StreamRunner(url)
        yield runner
        await runner.close()


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
    host.queue.result = ONE
    await classify(runner)  # opens the stream, which may take longer than the other may wait
    host.queue.result = None
    host.queue.answers.clear()
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
    with pytest.raises(CallLost):
        await call
    await until(host.queue.answers[0].cancelled)
    await until(lambda: host.connections == 0)
    host.queue.result = ONE
    assert await classify(runner) == [ONE]


async def test_socket_that_is_gone_is_named_with_the_cure(tmp_path: Path) -> None:
    runner = StreamRunner(f"file://{tmp_path}/gone.sock")
    with pytest.raises(StreamLost, match=rf"{tmp_path}/gone.sock is gone.*restart the service"):
        await classify(runner)
    await runner.close()


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


async def described(runner: StreamRunner) -> None:
    """As a process asks each second; a connection that was kept may be forgotten too."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            await runner.describe()


async def test_stream_that_leads_nowhere_is_ended_and_its_calls_fail(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """A router had forgotten it: each call waited for its deadline, and the host was ready."""
    relay = Relay()
    async with host.running() as url, relay.running(url) as relayed:
        runner = StreamRunner(relayed)
        host.queue.result = ONE
        assert await classify(runner) == [ONE]
        for _ in range(2 * DEAD_AFTER):
            await runner.describe()
            await classify(runner)
        assert "dead" not in caplog.text
        relay.forget()
        call = calling(runner)
        for _ in range(DEAD_AFTER):
            await described(runner)
            assert not call.done()
        async with asyncio.timeout(WAIT_SECONDS):
            while not call.done():
                await described(runner)
        with pytest.raises(CallLost):
            await call
        assert caplog.text.count("a stream to a runner that answers elsewhere is dead") == 1
        assert await classify(runner) == [ONE]  # over a new one
        await runner.close()


async def test_stream_of_a_host_that_computes_for_long_goes_on(host: Host) -> None:
    async with host.running() as url:
        runner = StreamRunner(url)
        call = calling(runner)
        await until(lambda: len(host.queue.answers) == 1)
        for _ in range(3 * DEAD_AFTER):
            await runner.describe()
        assert not call.done()
        host.queue.answers[0].set_result([ONE])
        assert await call == [ONE]
        await runner.close()


async def test_stream_of_a_host_that_never_answered_a_question_is_kept(host: Host) -> None:
    """Runners of the first builds pass over the end of a call that they do not have."""
    relay = Relay()
    async with host.running() as url, relay.running(url) as relayed:
        runner = StreamRunner(relayed)
        host.queue.result = ONE
        await classify(runner)
        relay.forget()
        call = calling(runner)
        for _ in range(3 * DEAD_AFTER):
            await described(runner)
        assert not call.done()
        call.cancel()
        await runner.close()


async def test_stream_is_open_before_the_first_call(host: Host, tmp_path: Path) -> None:
    """A service that stops removes the socket of its runners, and answers for a moment more."""
    host.queue.result = ONE
    path = tmp_path / "socket"
    async with host.running(path) as url:
        runner = StreamRunner(url)
        await runner.describe()
        await until(lambda: host.connections == 2)
        await runner.describe()  # once the stream is open
        path.unlink()
        assert await classify(runner) == [ONE]
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
