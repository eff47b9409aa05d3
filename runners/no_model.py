"""Stands in for the batcher of a runner that has no model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from bentoml.exceptions import ServiceUnavailable

from core.heartbeat import Work
from core.types import Classification, RunnerDescription, Version


class NoModel:
    """Refuses calls, as the runner says why it has no model and waits for one."""

    async def classify(self, *_call: object, **_options: object) -> list[Classification]:
        """Raises: ServiceUnavailable, always."""
        return await self.submit()

    def submit(self, *_call: object, **_options: object) -> asyncio.Future[list[Classification]]:
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
