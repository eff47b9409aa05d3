"""Single-flight: a text that is being computed is waited for, not computed again.

After Go's golang.org/x/sync/singleflight, for a batch of keys at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Shares the computation of equal keys between the callers of one process."""

    def __init__(self, on_join: Callable[[int], object]) -> None:
        """`on_join` is told how many keys a call found already in flight."""
        self._in_flight: dict[str, asyncio.Future[T]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_join = on_join

    async def get(
        self,
        keys: Sequence[str],
        compute: Callable[[Sequence[str]], Awaitable[Mapping[str, T]]],
    ) -> dict[str, T]:
        """The value of every key. `compute` is called once, with the keys nobody computes yet.

        A failure reaches every caller that waits for the key. A caller that is cancelled does not
        take the computation away from those who joined it: it runs on in a task of its own.
        """
        distinct = list(dict.fromkeys(keys))
        mine = [key for key in distinct if key not in self._in_flight]
        if len(mine) < len(distinct):
            self._on_join(len(distinct) - len(mine))
        if mine:
            loop = asyncio.get_running_loop()
            futures = {key: loop.create_future() for key in mine}
            self._in_flight.update(futures)
            task = loop.create_task(self._run(futures, compute))
            # The loop itself holds only a weak reference to a task.
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        waiting = [self._in_flight[key] for key in distinct]
        # gather would cancel the shared futures together with this caller.
        values = await asyncio.gather(*(asyncio.shield(future) for future in waiting))
        return dict(zip(distinct, values, strict=True))

    async def _run(
        self,
        futures: dict[str, asyncio.Future[T]],
        compute: Callable[[Sequence[str]], Awaitable[Mapping[str, T]]],
    ) -> None:
        try:
            values = await compute(list(futures))
            for key, future in futures.items():
                future.set_result(values[key])
        except asyncio.CancelledError:
            for future in futures.values():
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001  told to every waiter, whatever it is
            for future in futures.values():
                if not future.done():
                    future.set_exception(error)
                    # If nobody is left to hear of it, it is no unhandled error.
                    future.exception()
        finally:
            for key in futures:
                self._in_flight.pop(key, None)
