"""Coalescing: items of many requests travel together in few calls to a backend."""

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
    """Items were dropped before any call carried them; the message says why."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most calls in flight, items in one call, and items that may wait.

    A request with more items than `call_items` is still sent as one call.
    """

    calls: int
    call_items: int
    waiting_items: int


@dataclass(slots=True, eq=False)
class _Request(Generic[Item, Result]):
    items: Sequence[Item]
    deadline: float
    results: asyncio.Future[list[Result]]


class Coalescer(Generic[Item, Result]):
    """Calls an idle backend at once; requests that wait share the next call.

    A request that was cancelled or is past its deadline before its call is made is left out of
    the call. With `cancel_abandoned`, a call in flight is cancelled once all requests that share
    it were cancelled.
    """

    def __init__(
        self,
        call: Callable[[list[Item], float], Awaitable[Sequence[Result]]],
        bounds: Bounds,
        *,
        timeout_seconds: float,
        cancel_abandoned: bool = False,
    ) -> None:
        """`call` takes the items and the seconds after which nobody needs their results."""
        self._call = call
        self._bounds = bounds
        self.max_calls = bounds.calls  # may be changed at any time
        self._timeout_seconds = timeout_seconds
        self._cancel_abandoned = cancel_abandoned
        self._waiting: deque[_Request[Item, Result]] = deque()
        self._waiting_items = 0
        self._calls: set[asyncio.Task[None]] = set()

    async def get(self, items: Sequence[Item]) -> list[Result]:
        """Get the results of `items`, at least one, in order.

        A call that fails raises its error for every request that shared it.

        Raises:
            CallDropped: too many items wait already, or the deadline passed while these waited.
        """
        if self._waiting and self._waiting_items + len(items) > self._bounds.waiting_items:
            raise CallDropped(f"{self._waiting_items} wait already")
        loop = asyncio.get_running_loop()
        request = _Request[Item, Result](
            items, loop.time() + self._timeout_seconds, loop.create_future()
        )
        self._waiting.append(request)
        self._waiting_items += len(items)
        self._start_calls(loop)
        return await request.results

    def _start_calls(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting and len(self._calls) < self.max_calls:
            if requests := self._gather(loop.time()):
                task = loop.create_task(self._run(requests))
                self._calls.add(task)
                task.add_done_callback(self._call_ended)
                if self._cancel_abandoned:
                    _cancel_when_abandoned(task, requests)

    def _call_ended(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._start_calls(task.get_loop())

    def _gather(self, now: float) -> list[_Request[Item, Result]]:
        requests: list[_Request[Item, Result]] = []
        room = self._bounds.call_items
        while self._waiting and (not requests or len(self._waiting[0].items) <= room):
            request = self._waiting.popleft()
            self._waiting_items -= len(request.items)
            if request.results.done():
                continue
            if now >= request.deadline:
                request.results.set_exception(CallDropped("the deadline passed"))
                continue
            requests.append(request)
            room -= len(request.items)
        return requests

    async def _run(self, requests: list[_Request[Item, Result]]) -> None:
        loop = asyncio.get_running_loop()
        timeout_seconds = max(request.deadline for request in requests) - loop.time()
        items = [item for request in requests for item in request.items]
        try:
            results = await self._results(items, timeout_seconds)
        except asyncio.CancelledError:
            for request in requests:
                request.results.cancel()
            raise
        except Exception as error:  # noqa: BLE001  every request that shared the call gets it
            for request in requests:
                if not request.results.done():
                    request.results.set_exception(error)
            return
        remaining = iter(results)
        for request in requests:
            share = list(islice(remaining, len(request.items)))
            if not request.results.done():
                request.results.set_result(share)

    async def _results(self, items: list[Item], timeout_seconds: float) -> Sequence[Result]:
        results = await self._call(items, timeout_seconds)
        if len(results) != len(items):
            raise ValueError(f"{len(results)} results came back for {len(items)} items")
        return results


def _cancel_when_abandoned(
    task: asyncio.Task[None], requests: Sequence[_Request[Item, Result]]
) -> None:
    def on_done(_results: asyncio.Future[list[Result]]) -> None:
        # If the task itself set the results, it has ended, and cancelling it does nothing.
        if all(request.results.done() for request in requests):
            task.cancel()

    for request in requests:
        request.results.add_done_callback(on_done)
