"""Wire models of the rollout: its status, its history, and the changes of a policy."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import bentoml
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from core.types import Version
from rollout.changes import Action
from rollout.guardrails import GuardrailName, State
from rollout.policy import RolloutPolicy
from rollout.record import PolicyRecord


class PolicyChange(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    field: str = Field(description="such as ab_weights.v2")
    before: JsonValue
    after: JsonValue


# With the base that BentoML needs, because a POST replies with it too.
class PolicyHeader(bentoml.IODescriptor):
    policy_version: int
    created_at: datetime
    author: str
    action: Action
    reason: str


def policy_header(record: PolicyRecord) -> dict[str, Any]:
    """The fields of a `PolicyHeader`."""
    fields = ("created_at", "author", "action", "reason")
    return {"policy_version": record.version} | {name: getattr(record, name) for name in fields}


class GuardrailState(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    name: GuardrailName
    state: State
    sentence: str


class RolloutStatus(PolicyHeader):
    policy_version: int = Field(description="the `base_version` that a change has to name")
    frozen: bool = Field(description="the newest policy is not known; this one is in force")
    waits_for: list[Version] = Field(
        description="versions whose model a roll-back changed, and which have yet to load it, or "
        "refused it: meanwhile they get no more traffic than by the policy before"
    )
    policy: RolloutPolicy
    champion: Version
    challenger: Version
    guardrails: list[GuardrailState] | None = Field(
        description="null if the challenger gets no traffic, or if its metrics are not available"
    )
    step_ends: datetime | None = Field(
        description="when the schedule goes on, if every guardrail is kept by then"
    )


class PolicyEntry(PolicyHeader):
    changes: list[PolicyChange] = Field(description="against the policy before")


class RolloutHistory(BaseModel):
    policies: list[PolicyEntry] = Field(description="the newest first")
    next_before: int | None = Field(description="`before` of the next page; null on the last")
