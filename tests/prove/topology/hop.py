"""Both ends of a runner's stream, with nothing behind it: what is left is the cost of the way.

    python -m tests.prove.topology.hop host unix:PATH      (or tcp:ADDRESS:PORT)
    python -m tests.prove.topology.hop call URL CALLS

The host answers each call at once. The caller prints the CPU seconds that its calls took.
"""

from __future__ import annotations

import asyncio
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
RESULT = Classification("d2c880688693", "openvino-bf16", {"positive": 0.9, "negative": 0.1}, 35)
TEXT = "The film was " + "quite slow but charming after all, " * 4
CALLERS = 16
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


def host(where: str) -> None:
    endpoints = RunnerEndpoints(PlainTextResponse(), lambda: Answers({}, Echo), MAX_BYTES)
    kind, _, rest = where.partition(":")
    address, _, port = rest.rpartition(":")
    listening = {"uds": rest} if kind == "unix" else {"host": address, "port": int(port)}
    uvicorn.run(
        endpoints, http=BoundedHttpProtocol, interface="asgi3", lifespan="off", log_config=None,
        **listening,
    )  # type: ignore[arg-type]  # fmt: skip


async def call(url: str, calls: int) -> float:
    runner = StreamRunner(url)

    async def keep_calling(times: int) -> None:
        for _ in range(times):
            await runner.classify([TEXT], 10, "interactive")

    await keep_calling(1)  # which opens the stream
    before = time.process_time()
    await asyncio.gather(*(keep_calling(calls // CALLERS) for _ in range(CALLERS)))
    used = time.process_time() - before
    await runner.close()
    return used


if __name__ == "__main__":
    if sys.argv[1] == "host":
        host(sys.argv[2])
    else:
        print(asyncio.run(call(sys.argv[2], int(sys.argv[3]))))  # noqa: T201  its result
