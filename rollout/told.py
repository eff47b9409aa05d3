"""How changes of a policy are told on the wire."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, Field, JsonValue

from rollout.changes import Change


class PolicyChange(BaseModel):
    field: str = Field(description="such as ab_weights.v2")
    before: JsonValue
    after: JsonValue


def told(changes: Sequence[Change]) -> list[PolicyChange]:
    """As they are told on the wire."""
    return [PolicyChange.model_validate(change._asdict()) for change in changes]
