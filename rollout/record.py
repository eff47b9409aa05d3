"""The record of a policy: its author, time, action and reason."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter

from rollout.changes import Action
from rollout.policy import RolloutPolicy


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """A policy with its author, action and reason. Version 0 comes from the settings."""

    version: int
    created_at: datetime
    author: str
    action: Action
    reason: str
    policy: RolloutPolicy


# The form in PostgreSQL and in rollout.json; dump it `by_alias`.
STORED = TypeAdapter(PolicyRecord)
