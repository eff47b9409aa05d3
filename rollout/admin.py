"""What an admin can do to the rollout, and what there is to see of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from core import metrics
from core.errors import PolicyConflict, PolicyNotFound, invalid_field
from core.types import Version
from rollout.changes import (
    AskedAction,
    Change,
    differences,
    promoted,
    reloaded,
    restored,
    rolled_back,
    stepped,
    subjects_moved_percent,
    with_changes,
)
from rollout.guardrails import GuardrailResult
from rollout.live import LivePolicy
from rollout.policy import RolloutChanges, RolloutPolicy
from rollout.record import PolicyRecord
from rollout.store import PolicyStore
from rollout.watch import RolloutWatch


@dataclass(frozen=True, slots=True)
class Outcome:
    """A policy that was put in force or, if `dry_run`, that would have been."""

    record: PolicyRecord
    changes: list[Change]
    subjects_moved_percent: float
    dry_run: bool


class RolloutAdmin:
    """Every method raises `DatabaseUnavailable` while PostgreSQL cannot be asked."""

    def __init__(
        self,
        live: LivePolicy,
        store: PolicyStore,
        watch: RolloutWatch,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._live = live
        self._store = store
        self._watch = watch
        self._clock = clock

    async def change(
        self,
        action: AskedAction,
        *,
        base_version: int,
        author: str,
        reason: str,
        changes: RolloutChanges | None = None,
        to_version: int | None = None,
        dry_run: bool = False,
    ) -> Outcome:
        """Put another policy in force, or say what would come of it.

        Raises:
            PolicyConflict: `base_version` is not in force any more.
            PolicyNotFound: there is no policy `to_version` to go back to.
            InvalidRequest: what is asked does not fit the policy that is in force.
        """
        await self._live.look()
        before, now = self._live.record, self._clock()
        if before.version != base_version:
            raise PolicyConflict(
                f"Policy {before.version} is in force by now, not {base_version}; "
                "look at GET /admin/rollout and decide again"
            )
        match action:
            case "set":
                if changes is None or not changes.model_fields_set:
                    raise invalid_field("changes", "say what is to change")
                policy = with_changes(before.policy, changes, now)
            case "promote":
                policy = promoted(before.policy)
            case "roll_back":
                policy = await self._before(before, to_version)
            case "next_step":
                policy = stepped(before.policy, now)
        record = PolicyRecord(before.version + 1, now, author, action, reason, policy)
        return await self._put(before, record, dry_run=dry_run)

    async def reload(
        self,
        version: Version,
        tag: str | None,
        *,
        base_version: int | None,
        author: str,
        reason: str,
    ) -> Outcome:
        """Have the runners of `version` hold `tag`, or again what is configured.

        Raises:
            PolicyConflict: `base_version`, if it is told, is not in force any more.
        """
        await self._live.look()
        before, now = self._live.record, self._clock()
        if base_version is not None and before.version != base_version:
            raise PolicyConflict(f"Policy {before.version} is in force by now, not {base_version}")
        policy = reloaded(before.policy, version, tag, before.version + 1, now)
        record = PolicyRecord(before.version + 1, now, author, "reload", reason, policy)
        return await self._put(before, record, dry_run=False)

    async def history(self, limit: int, before: int | None) -> Sequence[PolicyRecord]:
        return await self._store.history(limit, before)

    async def judgements(self) -> list[GuardrailResult] | None:
        """What the guardrails say now; None if there is nothing for them to judge."""
        return await self._watch.judge(self._live.record, self._clock())

    async def _before(self, record: PolicyRecord, to_version: int | None) -> RolloutPolicy:
        if to_version is None:
            return rolled_back(record.policy)
        configured = self._live.configured
        earlier = await self._store.get(to_version) if to_version else configured
        if earlier is None:
            raise PolicyNotFound(f"There is no policy {to_version}; see GET /admin/rollout/history")
        return restored(record.policy, earlier.policy, record.version + 1)

    async def _put(self, before: PolicyRecord, record: PolicyRecord, *, dry_run: bool) -> Outcome:
        policies = before.policy, record.policy
        moved = subjects_moved_percent(*policies)
        outcome = Outcome(record, differences(*policies), moved, dry_run)
        if dry_run:
            return replace(outcome, record=replace(record, version=before.version))
        await self._store.append(record)
        metrics.rollout_changes.labels(record.action).inc()
        await self._live.activate(record)
        return outcome
