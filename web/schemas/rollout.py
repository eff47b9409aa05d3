"""Wire models of the rollout: its status, its history, and the changes of a policy."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field, JsonValue

from core.types import Version
from rollout.changes import Action, Change
from rollout.guardrails import GuardrailName, State
from rollout.policy import RolloutPolicy
from rollout.record import PolicyRecord


class PolicyChange(BaseModel):
    field: str = Field(description="such as ab_weights.v2")
    before: JsonValue
    after: JsonValue


def to_wire(changes: Sequence[Change]) -> list[PolicyChange]:
    return [PolicyChange.model_validate(change._asdict()) for change in changes]


def policy_header(record: PolicyRecord) -> dict[str, Any]:
    """The fields with which every reply about a policy begins."""
    return {
        "policy_version": record.version,
        "created_at": record.created_at,
        "author": record.author,
        "action": record.action,
        "reason": record.reason,
    }


class GuardrailState(BaseModel):
    name: GuardrailName
    state: State
    sentence: str


class RolloutStatus(BaseModel):
    policy_version: int = Field(description="the `base_version` that a change has to name")
    created_at: datetime
    author: str
    action: Action
    reason: str
    frozen: bool = Field(description="the newest policy is not known; this one is in force")
    policy: RolloutPolicy
    champion: Version
    challenger: Version
    guardrails: list[GuardrailState] | None = Field(
        description="null if the challenger gets no traffic, or if its metrics are not available"
    )
    step_ends: datetime | None = Field(
        description="when the schedule goes on, if every guardrail is kept by then"
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
