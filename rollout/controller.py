"""Advances a schedule step by step, and rolls back when a guardrail fails."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from core import metrics
from core.background import Background
from core.errors import DatabaseUnavailable, PolicyConflict, describe_error
from core.types import Version
from rollout.changes import Action, rolled_back, step_ends, stepped
from rollout.evidence import evidence
from rollout.guardrails import GuardrailResult, evaluate
from rollout.live import LivePolicy
from rollout.policy import RolloutPolicy
from rollout.record import PolicyRecord
from rollout.sensitivity import StepSensitivity, sensitivities
from rollout.store import PolicyStore
from stats.arm_metrics import EvidenceQuery, RolloutMetrics, Stratum

logger = logging.getLogger("bentoml.sentiment.rollout")

CHECK_SECONDS = 5.0
# The traffic by which a dry run says what a schedule would notice.
TRAFFIC = timedelta(hours=1)
AUTHOR = "guardrails"

# The evidence about a champion and its challenger, for the revisions that the runners hold.
MetricsSource = Callable[[EvidenceQuery, Version, Mapping[Version, str]], Awaitable[RolloutMetrics]]


class RolloutController(Background):
    """Reconciles every few seconds in each API process; one process at a time does the work."""

    def __init__(
        self,
        live: LivePolicy,
        store: PolicyStore,
        measure: MetricsSource,
        revisions: Callable[[], Mapping[Version, str]],
    ) -> None:
        """`revisions` returns the revisions that the runners hold, as far as they are known."""
        self._live = live
        self._store = store
        self._measure = measure
        self._revisions = revisions
        # The version of the policy, and when it was first seen here, by time.monotonic.
        self._known: tuple[int, float] | None = None

    def _known_seconds(self, record: PolicyRecord) -> float:
        if self._known is None or self._known[0] != record.version:
            self._known = record.version, time.monotonic()
        return time.monotonic() - self._known[1]

    async def evaluate(self, record: PolicyRecord, now: datetime) -> list[GuardrailResult] | None:
        """Evaluate the guardrails of `record`; None if it has none or exposes no challenger.

        Raises:
            DatabaseUnavailable: the metrics cannot be read.
        """
        policy = record.policy
        if policy.guardrails is None or not policy.challenger_is_exposed:
            return None
        revisions = self._revisions()
        if len(revisions) < 2:
            return None
        query = evidence(record, now, known_seconds=self._known_seconds(record))
        measured = await self._measure(query, policy.champion, revisions)
        return await asyncio.to_thread(
            evaluate, policy.champion, policy.guardrails, measured, is_shadowed=policy.is_shadowed
        )

    async def sensitivities(self, policy: RolloutPolicy, now: datetime) -> list[StepSensitivity]:
        """What each step of a schedule would notice at the traffic of the last hour.

        Raises:
            DatabaseUnavailable: the traffic cannot be read.
        """
        revisions = self._revisions()
        if policy.schedule is None or len(revisions) < 2:
            return []
        lately = Stratum(policy.schedule.routes, policy.schedule.routes)
        query = EvidenceQuery((lately,), now - TRAFFIC, now, now, now)
        measured = await self._measure(query, policy.champion, revisions)
        texts = sum(arm.texts for arm in measured.strata[0].step.values())
        return await asyncio.to_thread(sensitivities, policy, texts / TRAFFIC.total_seconds())

    async def reconcile(self, now: datetime) -> None:
        """Roll back if a guardrail fails; go to the next step if all pass and the step has held.

        Raises:
            DatabaseUnavailable: the policy or the metrics cannot be read.
        """
        if self._live.policy.guardrails is None:
            return
        self._known_seconds(self._live.record)
        async with self._store.leadership() as is_leader:
            if not is_leader:
                return
            await self._live.refresh()
            record = self._live.record
            results = await self.evaluate(record, now)
            if results is None:
                return
            failed = [result for result in results if result.state == "fail"]
            ends = step_ends(record.policy)
            if failed:
                reason = "; ".join(f"{result.name}: {result.sentence}" for result in failed)
                logger.error("the rollout is rolled back, because a guardrail failed: %s", reason)
                await self._replace(record, "guardrail", reason, rolled_back(record.policy), now)
            elif (
                ends is not None
                and now >= ends
                and all(result.state == "pass" for result in results)
            ):
                reason = f"step {_step(record.policy)} held, and every guardrail passed"
                await self._replace(record, "next_step", reason, stepped(record.policy, now), now)

    async def _replace(
        self, before: PolicyRecord, action: Action, reason: str, policy: RolloutPolicy,
        now: datetime,
    ) -> None:  # fmt: skip
        record = PolicyRecord(before.version + 1, now, AUTHOR, action, reason, policy)
        # If an admin was faster, the next reconciliation sees the admin's policy.
        with suppress(PolicyConflict):
            await self._live.replace(record)

    async def _run(self) -> None:
        while True:
            try:
                await self.reconcile(datetime.now(UTC))
            except DatabaseUnavailable as error:
                logger.warning("the guardrails cannot be evaluated now: %s", describe_error(error))
            except Exception:  # the edge of a loop, which goes on
                logger.exception("the guardrails cannot be evaluated: unexpected error")
                metrics.background_failures.labels(type(self).__name__).inc()
            await asyncio.sleep(CHECK_SECONDS)


def _step(policy: RolloutPolicy) -> str:
    assert policy.schedule is not None and policy.progress is not None  # noqa: S101, PT018
    return f"{policy.progress.step + 1} of {len(policy.schedule.steps)}"
