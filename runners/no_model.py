"""Stands in for the batcher of a runner that has no model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from bentoml.exceptions import ServiceUnavailable
from opentelemetry.trace import SpanContext

from core.heartbeat import Work
from core.types import Classification, LongText, RunnerDescription, Version
from runners.lanes import Lane


class NoModel:
    """Refuses calls, as the runner says why it has no model and waits for one."""

    async def classify(
        self,
        texts: Sequence[str],
        *,
        timeout_seconds: float,
        lane: Lane = "interactive",
        long_text: LongText = "truncate",
    ) -> list[Classification]:
        """Raises: ServiceUnavailable, always."""
        return await self.submit(
            texts, timeout_seconds=timeout_seconds, lane=lane, trace=None, long_text=long_text
        )

    def submit(
        self,
        texts: Sequence[str],  # noqa: ARG002
        *,
        timeout_seconds: float,  # noqa: ARG002
        lane: Lane,  # noqa: ARG002
        trace: SpanContext | None,  # noqa: ARG002
        long_text: LongText = "truncate",  # noqa: ARG002
    ) -> asyncio.Future[list[Classification]]:
        """Raises: ServiceUnavailable, always."""
        raise ServiceUnavailable("no model can be loaded")

    def progress(self) -> Mapping[int, Work]:
        """No thread computes."""
        return {}

    def drain(self) -> None:
        """No call waits."""

    def close(self) -> None:
        """There is nothing to end."""


def without_model(version: Version, tag: str, reason: str) -> RunnerDescription:
    """The description of a runner that should hold `tag`, and holds no model for a `reason`."""
    return RunnerDescription(
        version, revision="", engine="", labels=(), tokens_per_second=None, hosts=1, tag=tag,
        observed_generation=0, loading=None, load_error=reason, converged=True, has_model=False,
    )  # fmt: skip
