"""Single-flight: a text in flight is awaited, not computed again.

After Go's golang.org/x/sync/singleflight, for a batch of keys at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Flight(Generic[T]):
    """One computation: the futures of its keys, and the number of callers that wait for any."""

    futures: dict[str, asyncio.Future[T]]
    is_large: bool
    callers: int = 0
    task: asyncio.Task[None] | None = None


class SingleFlight(Generic[T]):
    """Shares the computation of equal keys between the callers of one process."""

    def __init__(self, on_join: Callable[[int], object]) -> None:
        """A call that finds keys in flight calls `on_join` with their number."""
        self._in_flight: dict[str, _Flight[T]] = {}
        self._on_join = on_join

    def joins(self, key: str, *, is_large: bool = False) -> bool:
        """Whether a call would wait for `key`, which another one computes.

        A call that is not large waits for no large one, which may take a hundred times as long.
        """
        flight = self._in_flight.get(key)
        return flight is not None and (is_large or not flight.is_large)

    def found(self, values: Mapping[str, T]) -> None:
        """Give values to whoever waits for them, before the others of their computation."""
        for key, value in values.items():
            flight = self._in_flight.get(key)
            if flight is not None and not flight.futures[key].done():
                flight.futures[key].set_result(value)

    async def get(
        self,
        keys: Sequence[str],
        compute: Callable[[Sequence[str]], Awaitable[Mapping[str, T]]],
        *,
        is_large: bool = False,
    ) -> dict[str, T]:
        """Get the value of every key; calls `compute` once, with the keys that it does not join.

        A failure reaches every caller that waits for the key. A cancelled caller does not cancel
        the computation for the others; only when the last caller has left is it cancelled.
        """
        distinct = list(dict.fromkeys(keys))
        new = [key for key in distinct if not self.joins(key, is_large=is_large)]
        if len(new) < len(distinct):
            self._on_join(len(distinct) - len(new))
        if new:
            loop = asyncio.get_running_loop()
            flight = _Flight[T]({key: loop.create_future() for key in new}, is_large)
            self._in_flight.update(dict.fromkeys(new, flight))
            flight.task = loop.create_task(self._run(flight, compute))
        flight_of = {key: self._in_flight[key] for key in distinct}
        flights = list(dict.fromkeys(flight_of.values()))
        for joined in flights:
            joined.callers += 1
        try:
            # gather would cancel the shared futures together with this caller.
            values = await asyncio.gather(
                *(asyncio.shield(flight.futures[key]) for key, flight in flight_of.items())
            )
        finally:
            for joined in flights:
                self._leave(joined)
        return dict(zip(distinct, values, strict=True))

    def _leave(self, flight: _Flight[T]) -> None:
        flight.callers -= 1
        if not flight.callers and flight.task is not None and not flight.task.done():
            # Before the cancellation, so that no call joins a cancelled computation.
            self._land(flight)
            flight.task.cancel()

    def _land(self, flight: _Flight[T]) -> None:
        for key in flight.futures:
            if self._in_flight.get(key) is flight:
                del self._in_flight[key]

    async def _run(
        self, flight: _Flight[T], compute: Callable[[Sequence[str]], Awaitable[Mapping[str, T]]]
    ) -> None:
        try:
            values = await compute(list(flight.futures))
            for key, future in flight.futures.items():
                if not future.done():
                    future.set_result(values[key])
        except asyncio.CancelledError:
            for future in flight.futures.values():
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001  every waiting caller gets it
            for future in flight.futures.values():
                if not future.done():
                    future.set_exception(error)
                    # Marks it as retrieved: without callers it is no unhandled error.
                    future.exception()
        finally:
            self._land(flight)
