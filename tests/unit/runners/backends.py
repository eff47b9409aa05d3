"""A runner's backend of a test, and clients of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from core.types import Classification, DesiredModel, LongText, RunnerDescription, Version
from runners.admission import QueueBounds
from runners.client import RunnerClient
from runners.lanes import Lane
from tests.unit.fakes import runner_description

WAIT_SECONDS = 10.0
BOUNDS = QueueBounds(texts=100, tokens=10_000, seconds={"interactive": 1.0, "bulk": 5.0})


class FakeBackend:
    """A runner that answers, hangs or fails."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.errors: list[Exception] = []
        self.hangs = False
        self.seconds = 0.0
        self.revision = "r"
        self.engine = "openvino-bf16"
        self.answers_as: str | None = None
        self.tokens_per_second: float | None = None
        self.calls: list[list[str]] = []
        self.lanes: list[Lane] = []
        self.timeouts: list[float] = []
        self.requested: list[DesiredModel] = []
        # It has not loaded what was requested, and has saved nothing.
        self.is_blank = False
        # It still has the first model that was requested.
        self.is_slow = False
        self.load_error: str | None = None
        self.has_model = True

    async def classify(
        self,
        texts: Sequence[str],
        timeout_seconds: float,
        lane: Lane,
        long_text: LongText = "truncate",  # noqa: ARG002  the protocol has it
    ) -> list[Classification]:
        assert 0 < timeout_seconds <= WAIT_SECONDS
        if self.error:
            raise self.error
        if self.errors:
            raise self.errors.pop(0)
        if self.hangs:
            async with asyncio.timeout(timeout_seconds):
                await asyncio.Event().wait()
        await asyncio.sleep(self.seconds)
        self.calls.append(list(texts))
        self.lanes.append(lane)
        self.timeouts.append(timeout_seconds)
        return [
            Classification(
                self.answers_as or self.revision, "fake", {"positive": 1.0}, 3, truncated=False
            )
            for _ in texts
        ]

    async def load(self, desired: DesiredModel) -> RunnerDescription:
        self.requested.append(desired)
        return await self.describe()

    async def describe(self) -> RunnerDescription:
        if self.error:
            raise self.error
        observed = DesiredModel(None, 0)
        if self.requested and not self.is_blank:
            observed = self.requested[0 if self.is_slow else -1]
        return runner_description(
            revision=self.revision,
            engine=self.engine,
            tokens_per_second=self.tokens_per_second,
            observed_generation=observed.generation,
            tag=observed.tag or "configured:1",
            load_error=self.load_error,
            has_model=self.has_model,
        )


def client(backend: FakeBackend, version: Version = "v1") -> RunnerClient:
    return RunnerClient(version, backend, BOUNDS, timeout_seconds=WAIT_SECONDS)


async def classify(runner: RunnerClient, texts: Sequence[str]) -> list[Classification]:
    with runner.admit(texts):
        return await runner.classify(texts)


async def until(condition: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
