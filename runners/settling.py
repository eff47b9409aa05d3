"""Holds calls back while a runner has yet to load the model of the rollout policy."""

from __future__ import annotations

import asyncio
import logging
import time

from core.types import RunnerDescription, Version
from runners.desired_state import DesiredState

logger = logging.getLogger("bentoml.sentiment.runner")

# A runner that cannot load the model of the policy in this time answers with the one that it has.
SETTLE_SECONDS = 60.0


class Settling:
    """Whether a runner may be called, by what it says of itself and by its desired state.

    One that starts may hold another model than the policy's, because what it had saved is gone, or
    because it was down during a change: calls wait until it has loaded that one, or refused it.
    """

    def __init__(self, version: Version, desired: DesiredState, *, follows_policy: bool) -> None:
        """Without `follows_policy` any runner may be called."""
        self._version: Version = version
        self._desired = desired
        self._follows_policy = follows_policy
        self._is_settled = asyncio.Event()
        if not follows_policy:
            self._is_settled.set()
        # By time.monotonic.
        self._unsettled_since: float | None = None

    async def wait(self, seconds: float) -> bool:
        """Wait until the runner may be called, at most `seconds`; returns whether it may."""
        if not self._is_settled.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._is_settled.wait()
            except TimeoutError:
                return False
        return True

    def judge(self, description: RunnerDescription) -> bool:
        """Whether the runner may be called; calls that wait are sent, if it may."""
        if not self._follows_policy or self._desired.is_settled(description):
            self._unsettled_since = None
            self._is_settled.set()
            return True
        now = time.monotonic()
        if self._unsettled_since is None:
            self._unsettled_since = now
            logger.info(
                "runner %s holds %s, and answers once it has the model of the rollout policy",
                self._version, description.tag,
            )  # fmt: skip
        if now - self._unsettled_since > SETTLE_SECONDS:
            self._is_settled.set()
        else:
            self._is_settled.clear()
        return self._is_settled.is_set()
