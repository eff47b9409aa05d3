"""The faults that alerts are about: what is made to happen to a served Bento, and what must fire.

Each module of this folder named `*_faults` adds its own with the decorator `fault`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.integration.analytics.sinks.receiver import Receiver
from tests.served.stack import Stack


@dataclass(frozen=True)
class Scene:
    """A served Bento that is well, and what may be broken around it."""

    stack: Stack
    home: Path  # of BentoML
    # Tags of models: the one that v2 has, one made of it that says positive for negative, and one
    # that does not answer as it did when it was saved.
    v2: str
    flipped: str
    mistaken: str
    events: Receiver  # the endpoint of LOG_EVENTS_URL


Make = Callable[[Scene], AsyncIterator[None]]


@dataclass(frozen=True)
class Fault:
    """A fault, and the alerts that it fires."""

    name: str
    alerts: frozenset[str]
    # Whether the alerts end within a minute of the fault, and so are waited for.
    is_over_soon: bool
    # Whether the service does not outlive it.
    ends_service: bool
    made: Callable[[Scene], AbstractAsyncContextManager[None]]


DECLARED: list[Fault] = []


def fault(
    *alerts: str, is_over_soon: bool = True, ends_service: bool = False
) -> Callable[[Make], Make]:
    """Declare a fault: a generator that makes it, yields while it lasts, and mends it.

    It goes on after its `yield` when each of its alerts has fired. Unless it ends the service,
    others happen to the same one, in any order: it leaves that well, with the models of the
    settings.
    """

    def declare(make: Make) -> Make:
        made = asynccontextmanager(make)
        DECLARED.append(Fault(make.__name__, frozenset(alerts), is_over_soon, ends_service, made))
        return make

    return declare


@asynccontextmanager
async def repeating(
    send: Callable[[httpx.AsyncClient], Awaitable[object]],
    stack: Stack,
    *,
    clients: int = 1,
    pause_seconds: float = 0.05,
) -> AsyncIterator[None]:
    """Clients that do the same again and again while the block lasts, whatever comes of it."""

    async def repeat(client: httpx.AsyncClient) -> None:
        while True:
            with suppress(httpx.TransportError):
                await send(client)
            await asyncio.sleep(pause_seconds)

    async with stack.bento.async_client() as client:
        tasks = [asyncio.create_task(repeat(client)) for _ in range(clients)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [result for result in results if not isinstance(result, asyncio.CancelledError)]
    assert failures == []
