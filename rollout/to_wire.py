"""How policies and their changes are told on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field, JsonValue

from rollout.changes import Change
from rollout.record import PolicyRecord


class PolicyChange(BaseModel):
    field: str = Field(description="such as ab_weights.v2")
    before: JsonValue
    after: JsonValue


def told(changes: Sequence[Change]) -> list[PolicyChange]:
    """As they are told on the wire."""
    return [PolicyChange.model_validate(change._asdict()) for change in changes]


def head(record: PolicyRecord) -> dict[str, Any]:
    """The fields with which every reply about a policy begins."""
    return {
        "policy_version": record.version,
        "created_at": record.created_at,
        "author": record.author,
        "action": record.action,
        "reason": record.reason,
    }
