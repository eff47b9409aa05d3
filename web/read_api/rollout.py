"""The GET endpoints under /admin: which policy is in force, how it does, and what was before."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from typing import Annotated, Protocol

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from core.errors import DatabaseUnavailable
from core.types import Version
from rollout.admin import RolloutAdmin
from rollout.changes import Action, differences, step_ends
from rollout.guardrails import GuardrailName, State
from rollout.live import LivePolicy
from rollout.policy import MAX_VERSION, RolloutPolicy
from rollout.record import PolicyRecord
from rollout.to_wire import PolicyChange, head, told


class GuardrailState(BaseModel):
    name: GuardrailName
    state: State
    sentence: str


class RolloutStatus(BaseModel):
    policy_version: int = Field(description="what a change has to name as its `base_version`")
    created_at: datetime
    author: str
    action: Action
    reason: str
    frozen: bool = Field(description="the newest policy is not known; this one stays active")
    policy: RolloutPolicy
    champion: Version
    challenger: Version
    guardrails: list[GuardrailState] | None = Field(
        description="null where there is nothing for them to judge, or nothing to judge it by"
    )
    step_ends: datetime | None = Field(
        description="when the schedule goes on, if every guardrail passes by then"
    )


class PolicyEntry(BaseModel):
    policy_version: int
    created_at: datetime
    author: str
    action: Action
    reason: str
    changes: list[PolicyChange] = Field(description="against the policy before")


class RolloutHistory(BaseModel):
    policies: list[PolicyEntry] = Field(description="the newest first")
    next_before: int | None = Field(description="`before` of the next page; null on the last")


class Rollout(Protocol):
    """What there is to read of a running service."""

    @property
    def live_policy(self) -> LivePolicy: ...

    @property
    def rollout(self) -> RolloutAdmin: ...


def rollout_router(parts: Callable[[], Rollout]) -> APIRouter:
    router = APIRouter(prefix="/admin/rollout", tags=["admin"])

    @router.get("")
    async def rollout_status() -> RolloutStatus:
        """Which version answers whom by now, and how the challenger does."""
        live = parts().live_policy
        judgements = None
        with suppress(DatabaseUnavailable):
            # So that what was changed in another process a moment ago is told by this one too.
            await live.refresh()
            judgements = await parts().rollout.evaluate_guardrails()
        record = live.record
        return RolloutStatus(
            **head(record),
            frozen=live.is_frozen,
            policy=record.policy,
            champion=record.policy.champion,
            challenger=record.policy.challenger,
            guardrails=judgements
            and [GuardrailState.model_validate(one._asdict()) for one in judgements],
            step_ends=step_ends(record.policy),
        )

    @router.get("/history")
    async def rollout_history(
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        before: Annotated[
            int | None,
            Query(ge=1, le=MAX_VERSION, description="`next_before` of the page before"),
        ] = None,
    ) -> RolloutHistory:
        """Who changed what, when and why."""
        # One more, which the oldest of the page is compared with.
        records = list(await parts().rollout.history(limit + 1, before))
        next_before = records[limit - 1].version if len(records) > limit else None
        if next_before is None:
            records.append(parts().live_policy.configured)
        return RolloutHistory(
            policies=[_entry(record, earlier) for record, earlier in pairwise(records)],
            next_before=next_before,
        )

    return router


def _entry(record: PolicyRecord, before: PolicyRecord) -> PolicyEntry:
    return PolicyEntry(
        **head(record),
        changes=told(differences(before.policy, record.policy)),
    )
