"""One rendering serves all who asked before it began, and seldom runs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from core.shared_rendering import SharedRendering, SingleRendering
from tests.waiting import until

SECONDS = 0.02
Kind = Callable[[Callable[[], bytes]], SharedRendering[bytes] | SingleRendering]
KINDS: tuple[Kind, ...] = (SharedRendering.in_thread, SingleRendering)


class Document:
    """Counts its renderings, and lets each wait until it is told."""

    def __init__(self) -> None:
        self.begun = 0
        self.at_once = 0
        self.most_at_once = 0
        self.free = threading.Event()

    def render(self) -> bytes:
        self.begun += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        number = self.begun
        assert self.free.wait(10)
        time.sleep(SECONDS)
        self.at_once -= 1
        return str(number).encode()


@pytest.fixture
def document() -> Iterator[Document]:
    document = Document()
    yield document
    document.free.set()


async def test_all_who_ask_while_one_renders_share_the_next(document: Document) -> None:
    rendering = SharedRendering.in_thread(document.render)
    first = asyncio.create_task(rendering.get())
    await until(lambda: document.begun == 1)
    others = [asyncio.create_task(rendering.get()) for _ in range(50)]
    await asyncio.sleep(0)
    document.free.set()
    # None gets what was begun before it asked.
    assert [await first, *await asyncio.gather(*others)] == [b"1", *[b"2"] * 50]
    assert (document.begun, document.most_at_once) == (2, 1)


async def test_rendering_takes_a_fifth_of_the_time(document: Document) -> None:
    document.free.set()
    rendering = SharedRendering.in_thread(document.render)
    began = time.monotonic()
    for _ in range(5):
        await rendering.get()
    assert time.monotonic() - began > (5 + 4 * 4) * SECONDS
    # The first after a pause begins at once.
    await asyncio.sleep(4 * SECONDS + 0.5)
    before = document.begun
    waiting = asyncio.create_task(rendering.get())
    await until(lambda: document.begun > before, seconds=SECONDS * 4)
    await waiting


async def test_rendering_that_a_disk_held_up_keeps_none_waiting_for_long(
    document: Document,
) -> None:
    render = partial(asyncio.to_thread, document.render)
    rendering = SharedRendering(render, pause=1_000, max_pause_seconds=0.05)
    document.free.set()
    async with asyncio.timeout(1_000 * SECONDS / 2):
        assert [await rendering.get() for _ in range(3)] == [b"1", b"2", b"3"]


async def test_what_never_changes_is_rendered_once_for_all(document: Document) -> None:
    rendering = SingleRendering(document.render)
    waiting = [asyncio.create_task(rendering.get()) for _ in range(50)]
    await until(lambda: document.begun == 1)
    document.free.set()
    assert await asyncio.gather(*waiting) == [b"1"] * 50
    assert (await rendering.get(), document.begun) == (b"1", 1)


async def test_who_waits_no_longer_gets_something_else_and_begins_no_second(
    document: Document,
) -> None:
    rendering = SharedRendering(partial(asyncio.to_thread, document.render))
    for _ in range(5):
        assert await rendering.get_within(0.02, otherwise=b"?") == b"?"
    await until(lambda: document.begun == 1)
    document.free.set()
    assert await rendering.get_within(5.0, otherwise=b"?") != b"?"


@pytest.mark.parametrize("kind", KINDS)
async def test_who_leaves_ends_it_for_nobody_else(document: Document, kind: Kind) -> None:
    rendering = kind(document.render)
    leaving, staying = (asyncio.create_task(rendering.get()) for _ in range(2))
    await until(lambda: document.begun == 1)
    leaving.cancel()
    document.free.set()
    assert await staying == b"1"


@pytest.mark.parametrize("kind", KINDS)
async def test_failure_is_raised_to_all_who_wait_and_does_not_stay(kind: Kind) -> None:
    fails = True

    def render() -> bytes:
        if fails:
            raise ZeroDivisionError
        return b"well"

    rendering = kind(render)
    results = await asyncio.gather(*(rendering.get() for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [ZeroDivisionError] * 3
    fails = False
    assert await rendering.get() == b"well"
