"""A client that hangs up cancels the work for it; the work for one that stays is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
from starlette.types import Message

from core.asgi import WATCHED_AFTER_SECONDS, ClientDisconnected, cancelled_on_disconnect

WAIT_SECONDS = 5.0
# Longer than the watch for a client that leaves is put off.
UNTIL_WATCHED_SECONDS = 0.05
DISCONNECT: Message = {"type": "http.disconnect"}


class Client:
    """What an ASGI server tells of a client after the body: nothing, until it leaves."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.listened_to = asyncio.Event()

    async def receive(self) -> Message:
        if self.incoming.empty():
            self.listened_to.set()
        return await self.incoming.get()

    def leave(self) -> None:
        self.incoming.put_nowait(DISCONNECT)


class Work:
    """Works until its gate opens."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.working = asyncio.Event()
        self.cancelled = False

    async def __call__(self) -> str:
        self.working.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "done"


def start(client: Client, work: Callable[[], Awaitable[str]]) -> asyncio.Task[str]:
    """A request's task, as a server makes it; its result says how it ended."""

    async def request() -> str:
        try:
            async with cancelled_on_disconnect(client.receive):
                result = await work()
        except ClientDisconnected:
            return "left"
        return result

    return asyncio.create_task(request())


async def end(request: asyncio.Task[str]) -> str:
    """Wait for a request, and not for ever.

    Without asyncio.timeout, whose own cancellation would look like the one that is tested.
    """
    await asyncio.wait([request], timeout=WAIT_SECONDS)
    assert request.done()
    return await request


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
async def no_task_is_left_behind() -> AsyncIterator[None]:
    """After each test, its own and no other task is there."""
    before = asyncio.all_tasks()
    yield
    # A cancelled task needs a turn to end.
    await settle()
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()


async def test_client_that_hangs_up_cancels_its_work() -> None:
    work, client = Work(), Client()
    request = start(client, work)
    await work.working.wait()
    client.leave()
    assert await end(request) == "left"
    assert work.cancelled
    # The server's own task is no cancelled one.
    assert request.cancelling() == 0


async def test_client_that_had_left_before_the_watch_began_cancels_its_work() -> None:
    work, client = Work(), Client()
    client.leave()
    assert await end(start(client, work)) == "left"
    assert work.cancelled


async def test_other_messages_do_not_cancel_the_work() -> None:
    work, client = Work(), Client()
    client.incoming.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    request = start(client, work)
    await client.listened_to.wait()
    await settle()
    assert not work.cancelled
    client.leave()
    assert await end(request) == "left"


async def test_work_for_a_client_that_stays_is_done() -> None:
    work, client = Work(), Client()
    request = start(client, work)
    await client.listened_to.wait()
    work.gate.set()
    assert await end(request) == "done"
    assert not work.cancelled
    assert request.cancelling() == 0


async def test_short_work_costs_no_watch() -> None:
    work, client = Work(), Client()
    work.gate.set()
    assert await end(start(client, work)) == "done"
    await asyncio.sleep(UNTIL_WATCHED_SECONDS)
    assert WATCHED_AFTER_SECONDS < UNTIL_WATCHED_SECONDS
    assert not client.listened_to.is_set()


@pytest.mark.parametrize("slow", [False, True])
async def test_hang_up_after_the_block_does_nothing_and_nobody_listens(slow: bool) -> None:
    work, client, rest = Work(), Client(), asyncio.Event()

    async def request() -> str:
        async with cancelled_on_disconnect(client.receive):
            result = await work()
        await rest.wait()  # as the answer that is being sent
        return result

    task = asyncio.create_task(request())
    await work.working.wait()
    if slow:
        await client.listened_to.wait()
    work.gate.set()
    await settle()
    client.leave()
    await asyncio.sleep(UNTIL_WATCHED_SECONDS)
    assert client.incoming.qsize() == 1
    rest.set()
    assert await end(task) == "done"
    assert task.cancelling() == 0


@pytest.mark.parametrize("slow", [False, True])
async def test_error_of_the_block_passes(slow: bool) -> None:
    client = Client()

    async def failing() -> str:
        if slow:
            await client.listened_to.wait()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await end(start(client, failing))


async def test_timeout_inside_the_block_stays_a_timeout() -> None:
    async def slow() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return "too late"
        raise AssertionError

    assert await end(start(Client(), slow)) == "too late"


async def test_timeout_around_the_work_stays_a_timeout() -> None:
    client = Client()

    async def slow() -> str:
        async with asyncio.timeout(WAIT_SECONDS) as timeout:
            await client.listened_to.wait()
            timeout.reschedule(asyncio.get_running_loop().time())
            await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(TimeoutError):
        await end(start(client, slow))


async def test_timeout_that_expires_as_the_client_leaves_ends_as_left() -> None:
    client = Client()

    async def slow() -> str:
        async with asyncio.timeout(WAIT_SECONDS) as timeout:
            await client.listened_to.wait()
            client.leave()
            timeout.reschedule(0)
            await asyncio.Event().wait()
        raise AssertionError

    request = start(client, slow)
    await asyncio.wait([request], timeout=WAIT_SECONDS)
    # Both are true; whichever was first, no cancellation is left.
    assert request.done()
    assert not request.cancelled()
    assert isinstance(request.exception(), TimeoutError) or request.result() == "left"
    assert request.cancelling() == 0


async def test_server_that_stops_cancels_the_work() -> None:
    work = Work()
    request = start(Client(), work)
    await work.working.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert work.cancelled


async def test_server_that_stops_as_the_client_leaves_is_obeyed() -> None:
    work, client = Work(), Client()
    request = start(client, work)
    await client.listened_to.wait()
    client.leave()
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
    while not request.cancelling():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert work.cancelled


async def test_block_that_swallows_its_cancellation_leaves_none_behind() -> None:
    client, after = Client(), asyncio.Event()

    async def swallowing() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        after.set()
        return "done"

    request = start(client, swallowing)
    await client.listened_to.wait()
    client.leave()
    assert await end(request) == "left"
    assert after.is_set()
    assert request.cancelling() == 0


async def test_block_that_ends_just_as_the_client_leaves_leaves_no_cancellation_behind() -> None:
    """The cancellation reaches a task that the block waits for, which ends by itself."""
    client = Client()

    async def deaf() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "done"

    async def waiting() -> str:
        return await asyncio.create_task(deaf())

    request = start(client, waiting)
    await client.listened_to.wait()
    client.leave()
    assert await end(request) == "left"
    assert request.cancelling() == 0


async def test_block_whose_gate_opens_as_the_client_leaves_leaves_no_cancellation_behind() -> None:
    work, client = Work(), Client()
    request = start(client, work)
    await client.listened_to.wait()
    client.leave()
    work.gate.set()
    assert await end(request) in ("left", "done")
    assert request.cancelling() == 0


async def test_block_that_fails_at_its_cancellation_leaves_none_behind() -> None:
    client = Client()

    async def failing() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("as a driver does") from None
        raise AssertionError

    request = start(client, failing)
    await client.listened_to.wait()
    client.leave()
    with suppress(ValueError):
        await end(request)
    assert request.cancelling() == 0
