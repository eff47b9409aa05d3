"""Goes on with a schedule, and takes the challenger's traffic back if a guardrail breaks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from core import metrics
from core.errors import DatabaseUnavailable, PolicyConflict
from core.types import Version
from rollout.arm_metrics import EvidenceSource
from rollout.changes import Action, rolled_back, step_ends, stepped
from rollout.guardrails import GuardrailResult, judge
from rollout.live import LivePolicy
from rollout.policy import RolloutPolicy
from rollout.record import PolicyRecord
from rollout.store import PolicyStore

logger = logging.getLogger("bentoml.sentiment.rollout")

CHECK_SECONDS = 5.0
AUTHOR = "guardrails"


class RolloutWatch:
    """Looks every few seconds, in each API process; one of them at a time."""

    def __init__(
        self,
        live: LivePolicy,
        store: PolicyStore,
        evidence: EvidenceSource,
        revisions: Callable[[], Mapping[Version, str]],
    ) -> None:
        """`revisions` are what the runners hold; of a version that has not said so, none."""
        self._live = live
        self._store = store
        self._evidence = evidence
        self._revisions = revisions
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_looking(), name="rollout-watch")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def judge(self, record: PolicyRecord, now: datetime) -> list[GuardrailResult] | None:
        """What the guardrails of `record` say; None if it has none, or asks the challenger nothing.

        Raises:
            DatabaseUnavailable: what both versions did is not known.
        """
        policy = record.policy
        if policy.guardrails is None or not policy.challenger_is_exposed:
            return None
        revisions = self._revisions()
        if len(revisions) < 2:
            return None
        evidence = await self._evidence(_since(record), now, revisions)
        return await asyncio.to_thread(judge, policy.champion, policy.guardrails, evidence)

    async def look(self, now: datetime) -> None:
        """Raises DatabaseUnavailable."""
        if self._live.policy.guardrails is None:
            return
        async with self._store.alone() as alone:
            if not alone:
                return
            await self._live.look()
            record = self._live.record
            judgements = await self.judge(record, now)
            if judgements is None:
                return
            broken = [one for one in judgements if one.state == "broken"]
            ends = step_ends(record.policy)
            if broken:
                reason = "; ".join(f"{one.name}: {one.sentence}" for one in broken)
                logger.error("the challenger's traffic is taken back: %s", reason)
                await self._put(record, "guardrail", reason, rolled_back(record.policy), now)
            elif ends is not None and now >= ends and _all_kept(judgements):
                reason = f"step {_step(record.policy)} held, and every guardrail was kept"
                await self._put(record, "next_step", reason, stepped(record.policy, now), now)

    async def _put(
        self, before: PolicyRecord, action: Action, reason: str, policy: RolloutPolicy,
        now: datetime,
    ) -> None:  # fmt: skip
        record = PolicyRecord(before.version + 1, now, AUTHOR, action, reason, policy)
        # An admin was faster: what is in force now is looked at next time.
        with suppress(PolicyConflict):
            await self._store.append(record)
            metrics.rollout_changes.labels(action).inc()
            await self._live.activate(record)

    async def _keep_looking(self) -> None:
        while True:
            try:
                await self.look(datetime.now(UTC))
            except DatabaseUnavailable as error:
                logger.warning("the guardrails cannot be judged now: %r", error)
            except Exception:  # the edge of a loop, which goes on
                logger.exception("the guardrails cannot be judged, and nobody foresaw why")
            await asyncio.sleep(CHECK_SECONDS)


def _since(record: PolicyRecord) -> dict[Version, datetime]:
    """The challenger by the step, the champion, whose traffic fades, by the whole schedule."""
    policy, progress = record.policy, record.policy.progress
    if progress is None:
        return {policy.champion: record.created_at, policy.challenger: record.created_at}
    return {policy.champion: progress.started, policy.challenger: progress.since}


def _all_kept(judgements: Sequence[GuardrailResult]) -> bool:
    return all(one.state == "kept" for one in judgements)


def _step(policy: RolloutPolicy) -> str:
    assert policy.schedule is not None and policy.progress is not None  # noqa: S101, PT018
    return f"{policy.progress.step + 1} of {len(policy.schedule.steps)}"
