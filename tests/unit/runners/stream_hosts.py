"""A host of runners with a stream, and calls to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from starlette.responses import PlainTextResponse

from core.types import Classification
from loadtest.ports import free_port
from runners import wire
from runners.endpoints import Answers, RunnerEndpoints, RunnerKeyMiddleware
from runners.lanes import Lane
from runners.stream import StreamRunner
from serving.http_protocol import BoundedHttpProtocol
from tests.unit.fakes import runner_description
from tests.unit.runners.streams import FakeQueue
from tests.waiting import until

WAIT_SECONDS = 10.0
MAX_BYTES = 100_000
ONE = Classification("r", "e", {"positive": 1.0}, 3, truncated=False)


class Host:
    """A runner host on a real server, whose queue is the test's."""

    def __init__(self, keys: tuple[str, ...] = ()) -> None:
        self.queue = FakeQueue()
        self.posts = 0
        endpoints = RunnerEndpoints(
            PlainTextResponse("BentoML", status_code=404),
            lambda: Answers(
                {"/classify": self._post, "/describe": self._describe},
                lambda: self.queue,
                lambda: True,
            ),
            MAX_BYTES,
        )
        self.app = RunnerKeyMiddleware(endpoints, keys)
        self.server: uvicorn.Server

    async def _post(self, body: bytes) -> bytes:
        self.posts += 1
        return wire.encode(wire.Results([ONE] * len(wire.decode(body, wire.Classify).texts)))

    async def _describe(self, body: bytes) -> bytes:
        wire.decode(body, wire.Describe)
        return wire.encode(runner_description())

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


async def classify(
    runner: StreamRunner, *texts: str, seconds: float = WAIT_SECONDS, lane: Lane = "interactive"
) -> list[Classification]:
    return await runner.classify(list(texts or ("a text",)), seconds, lane)


def calling(runner: StreamRunner, *texts: str) -> asyncio.Task[list[Classification]]:
    return asyncio.create_task(classify(runner, *texts))
