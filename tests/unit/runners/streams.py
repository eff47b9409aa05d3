"""A runner's queue whose answers a test gives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from opentelemetry.trace import SpanContext

from core.types import Classification, LongText
from runners.lanes import Lane

Answer = asyncio.Future[list[Classification]]


class FakeQueue:
    """Keeps the calls that come; answers each at once with `result`, if there is one."""

    def __init__(self, result: Classification | None = None) -> None:
        self.result = result
        self.refusal: Exception | None = None
        self.texts: list[list[str]] = []
        self.timeouts: list[float] = []
        self.lanes: list[Lane] = []
        self.modes: list[LongText] = []
        self.answers: list[Answer] = []

    def submit(
        self,
        texts: Sequence[str],
        *,
        timeout_seconds: float,
        lane: Lane,
        trace: SpanContext | None,  # noqa: ARG002  the protocol has it
        long_text: LongText = "truncate",
    ) -> Answer:
        if self.refusal is not None:
            raise self.refusal
        self.texts.append(list(texts))
        self.timeouts.append(timeout_seconds)
        self.lanes.append(lane)
        self.modes.append(long_text)
        answer: Answer = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        if self.result is not None:
            answer.set_result([self.result] * len(texts))
        return answer
