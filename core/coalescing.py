"""Shares the cost of a round trip: what waits while calls are under way goes into the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class CallDropped(Exception):
    """Items that were given up before any call carried them; says why."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many calls may be under way, and how many items one of them carries or may wait.

    A request with more items than `call_items` is still one call.
    """

    calls: int
    call_items: int
    waiting_items: int


@dataclass(slots=True, eq=False)
class _Request(Generic[Item, Result]):
    items: Sequence[Item]
    deadline: float
    answer: asyncio.Future[list[Result]]


class Coalescer(Generic[Item, Result]):
    """Sends an idle backend what comes at once, and a busy one what has gathered in the meantime.

    What was cancelled, or is past its deadline, before its call was made is left out of it; with
    `cancel_abandoned`, a call under way is cancelled when all who share it were.
    """

    def __init__(
        self,
        call: Callable[[list[Item], float], Awaitable[Sequence[Result]]],
        bounds: Bounds,
        *,
        timeout_seconds: float,
        cancel_abandoned: bool = False,
    ) -> None:
        """`call` is given items, and the seconds after which nobody wants the results any more."""
        self._call = call
        self._bounds = bounds
        self.calls = bounds.calls  # may be changed at any time
        self._timeout_seconds = timeout_seconds
        self._cancel_abandoned = cancel_abandoned
        self._waiting: deque[_Request[Item, Result]] = deque()
        self._waiting_items = 0
        self._calls: set[asyncio.Task[None]] = set()

    async def get(self, items: Sequence[Item]) -> list[Result]:
        """The results of `items`, at least one, in order; a failed call fails all that shared it.

        Raises:
            CallDropped: too many items wait already, or the deadline passed while these did.
        """
        if self._waiting and self._waiting_items + len(items) > self._bounds.waiting_items:
            raise CallDropped(f"{self._waiting_items} wait already")
        loop = asyncio.get_running_loop()
        request = _Request[Item, Result](
            items, loop.time() + self._timeout_seconds, loop.create_future()
        )
        self._waiting.append(request)
        self._waiting_items += len(items)
        self._send(loop)
        return await request.answer

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting and len(self._calls) < self.calls:
            if requests := self._gather(loop.time()):
                task = loop.create_task(self._run(requests))
                self._calls.add(task)
                task.add_done_callback(self._calls_on)
                if self._cancel_abandoned:
                    _cancel_when_all_left(task, requests)

    def _calls_on(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._send(task.get_loop())

    def _gather(self, now: float) -> list[_Request[Item, Result]]:
        requests: list[_Request[Item, Result]] = []
        room = self._bounds.call_items
        while self._waiting and (not requests or len(self._waiting[0].items) <= room):
            request = self._waiting.popleft()
            self._waiting_items -= len(request.items)
            if request.answer.done():
                continue
            if now >= request.deadline:
                request.answer.set_exception(CallDropped("the deadline passed"))
                continue
            requests.append(request)
            room -= len(request.items)
        return requests

    async def _run(self, requests: list[_Request[Item, Result]]) -> None:
        loop = asyncio.get_running_loop()
        timeout_seconds = max(request.deadline for request in requests) - loop.time()
        items = [item for request in requests for item in request.items]
        try:
            results = iter(await self._results(items, timeout_seconds))
            shares = [list(islice(results, len(request.items))) for request in requests]
        except asyncio.CancelledError:
            for request in requests:
                request.answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001  told to every caller, whatever it is
            for request in requests:
                if not request.answer.done():
                    request.answer.set_exception(error)
            return
        for request, share in zip(requests, shares, strict=True):
            if not request.answer.done():
                request.answer.set_result(share)

    async def _results(self, items: list[Item], timeout_seconds: float) -> Sequence[Result]:
        results = await self._call(items, timeout_seconds)
        if len(results) != len(items):
            raise ValueError(f"{len(results)} results came back for {len(items)} items")
        return results


def _cancel_when_all_left(
    task: asyncio.Task[None], requests: Sequence[_Request[Item, Result]]
) -> None:
    def left(_answer: asyncio.Future[list[Result]]) -> None:
        # Of a task that has given the answers itself, this does nothing: it has ended.
        if all(request.answer.done() for request in requests):
            task.cancel()

    for request in requests:
        request.answer.add_done_callback(left)
