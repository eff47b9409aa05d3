"""The admin's operations on the rollout: change, reload, history, guardrails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from core.errors import PolicyConflict, PolicyNotFound, invalid_field
from core.types import VERSIONS, Version
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
from rollout.controller import RolloutController
from rollout.guardrails import GuardrailResult
from rollout.live import LivePolicy
from rollout.policy import RolloutChanges, RolloutPolicy
from rollout.record import PolicyRecord
from rollout.sensitivity import StepSensitivity
from rollout.store import PolicyStore


@dataclass(frozen=True, slots=True)
class Outcome:
    """A policy that became active or, with `dry_run`, would have become active."""

    record: PolicyRecord
    changes: list[Change]
    subjects_moved_percent: float
    dry_run: bool
    steps: Sequence[StepSensitivity] = ()  # of a dry run with a schedule


# Why no runner of a version could load a tag; None: one may.
ModelProblem = Callable[[Version, str], Awaitable[str | None]]


async def no_problem(_version: Version, _tag: str) -> None: ...


class RolloutAdmin:
    """Every method raises `DatabaseUnavailable` while PostgreSQL does not answer."""

    def __init__(
        self,
        live: LivePolicy,
        store: PolicyStore,
        controller: RolloutController,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        model_problem: ModelProblem = no_problem,
    ) -> None:
        self._live = live
        self._store = store
        self._controller = controller
        self._clock = clock
        self._model_problem = model_problem

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
        """Activate another policy, or with `dry_run` report the changes that it would make.

        Raises:
            PolicyConflict: `base_version` is no longer the active policy.
            PolicyNotFound: policy `to_version` does not exist.
            InvalidRequest: the action does not fit the active policy.
        """
        await self._live.refresh()
        before, now = self._live.record, self._clock()
        if before.version != base_version:
            raise PolicyConflict(
                f"Policy {before.version} is active now, not {base_version}; "
                "read GET /admin/rollout and decide again"
            )
        match action:
            case "set":
                if changes is None or not changes.model_fields_set:
                    raise invalid_field("changes", "name at least one field to change")
                policy = with_changes(before.policy, changes, now)
            case "promote":
                policy = promoted(before.policy)
            case "roll_back":
                policy = await self._earlier(before, to_version)
            case "next_step":
                policy = stepped(before.policy, now)
        record = PolicyRecord(before.version + 1, now, author, action, reason, policy)
        return await self._commit(before, record, dry_run=dry_run)

    async def reload(
        self,
        version: Version,
        tag: str | None,
        *,
        base_version: int | None,
        author: str,
        reason: str,
    ) -> Outcome:
        """Set `tag` as the desired model of `version`; None stands for the configured model.

        Raises:
            PolicyConflict: `base_version` is given and is no longer the active policy.
            InvalidRequest: the model is not in the store, so that no runner could load it.
        """
        await self._live.refresh()
        before, now = self._live.record, self._clock()
        if base_version is not None and before.version != base_version:
            raise PolicyConflict(f"Policy {before.version} is active now, not {base_version}")
        policy = reloaded(before.policy, version, tag, before.version + 1, now)
        record = PolicyRecord(before.version + 1, now, author, "reload", reason, policy)
        return await self._commit(before, record, dry_run=False)

    async def history(self, limit: int, before: int | None) -> Sequence[PolicyRecord]:
        return await self._store.history(limit, before)

    async def evaluate_guardrails(self) -> list[GuardrailResult] | None:
        """Evaluate the guardrails now; None if the active policy has nothing to evaluate."""
        return await self._controller.evaluate(self._live.record, self._clock())

    async def _earlier(self, record: PolicyRecord, to_version: int | None) -> RolloutPolicy:
        if to_version is None:
            return rolled_back(record.policy)
        configured = self._live.configured
        earlier = await self._store.get(to_version) if to_version else configured
        if earlier is None:
            raise PolicyNotFound(
                f"Policy {to_version} does not exist; see GET /admin/rollout/history"
            )
        return restored(record.policy, earlier.policy, record.version + 1)

    async def _commit(
        self, before: PolicyRecord, record: PolicyRecord, *, dry_run: bool
    ) -> Outcome:
        policies = before.policy, record.policy
        await self._check_models(
            *policies, field="tag" if record.action == "reload" else "to_version"
        )
        moved = subjects_moved_percent(*policies)
        outcome = Outcome(record, differences(*policies), moved, dry_run)
        if dry_run:
            steps = await self._controller.sensitivities(record.policy, self._clock())
            record = replace(record, version=before.version)
            return replace(outcome, record=record, steps=steps)
        await self._live.replace(record)
        return outcome

    async def _check_models(
        self, before: RolloutPolicy, after: RolloutPolicy, *, field: str
    ) -> None:
        """Refuse a policy whose models cannot be loaded: nobody would take the wish back."""
        for version in VERSIONS:
            tag = after.desired_model(version).tag
            if tag is None or after.desired_model(version) == before.desired_model(version):
                continue
            if (problem := await self._model_problem(version, tag)) is not None:
                raise invalid_field(field, problem)
