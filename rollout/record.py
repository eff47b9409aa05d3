"""A policy with its history: who put it in force, when, how and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter

from rollout.changes import Action
from rollout.policy import RolloutPolicy


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """A policy, and how it came to be in force. Version 0 is what the settings say."""

    version: int
    created_at: datetime
    author: str
    action: Action
    reason: str
    policy: RolloutPolicy


RECORD = TypeAdapter(PolicyRecord)
