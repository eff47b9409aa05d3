"""Both ends of a runner's stream, with nothing behind it: what is left is the cost of the way.

    python -m tests.prove.topology.hop host unix:PATH      (or tcp:ADDRESS:PORT)
    python -m tests.prove.topology.hop call URL CALLS CALLERS

The host says when it listens, and answers each call at once. The caller, which makes so many calls
at a time, prints the CPU seconds that all of them took.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Sequence

import uvicorn
from opentelemetry.trace import SpanContext
from starlette.responses import PlainTextResponse

from core.types import Classification, LongText
from runners.endpoints import Answers, RunnerEndpoints
from runners.lanes import Lane
from runners.stream import StreamRunner
from serving.http_protocol import BoundedHttpProtocol

# As the classifier's, of a text of 35 tokens.
RESULT = Classification(
    "d2c880688693", "openvino-bf16", {"positive": 0.9, "negative": 0.1}, 35, truncated=False
)
TEXT = "The film was " + "quite slow but charming after all, " * 4
LISTENING = "listening"
MAX_BYTES = 1_000_000


class Echo:
    """A batcher that has computed everything."""

    def submit(
        self,
        texts: Sequence[str],
        *,
        timeout_seconds: float,  # noqa: ARG002  the batcher's
        lane: Lane,  # noqa: ARG002
        trace: SpanContext | None,  # noqa: ARG002
        long_text: LongText,  # noqa: ARG002
    ) -> asyncio.Future[list[Classification]]:
        answer: asyncio.Future[list[Classification]] = asyncio.get_running_loop().create_future()
        answer.set_result([RESULT] * len(texts))
        return answer


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(LISTENING, flush=True)  # noqa: T201  who started it reads it


def host(where: str) -> None:
    endpoints = RunnerEndpoints(
        PlainTextResponse(), lambda: Answers({}, Echo, lambda: True), MAX_BYTES
    )
    settings = uvicorn.Config(
        endpoints, http=BoundedHttpProtocol, interface="asgi3", lifespan="off", log_config=None
    )
    kind, _, rest = where.partition(":")
    if kind == "unix":
        settings.uds = rest
    else:
        settings.host, _, port = rest.rpartition(":")
        settings.port = int(port)
    _Server(settings).run()


async def call(url: str, calls: int, callers: int) -> float:
    runner = StreamRunner(url)

    async def keep_calling(times: int) -> None:
        for _ in range(times):
            await runner.classify([TEXT], 10, "interactive")

    await keep_calling(1)  # which opens the stream
    before = time.process_time()
    await asyncio.gather(*(keep_calling(calls // callers) for _ in range(callers)))
    used = time.process_time() - before
    await runner.close()
    return used


if __name__ == "__main__":
    if sys.argv[1] == "host":
        host(sys.argv[2])
    else:
        print(asyncio.run(call(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))  # noqa: T201  its result
