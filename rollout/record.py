"""The record of a policy: its author, time, action and reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

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


_ADAPTER = TypeAdapter(PolicyRecord)


def to_stored(record: PolicyRecord) -> dict[str, Any]:
    """The form in PostgreSQL and rollout.json, ready for JSON."""
    stored: dict[str, Any] = _ADAPTER.dump_python(record, mode="json", by_alias=True)
    return stored


def from_stored(stored: Mapping[str, Any] | bytes) -> PolicyRecord:
    """The opposite of `to_stored`; bytes are its JSON.

    Raises:
        pydantic.ValidationError: it is not a policy, or has a field that is not known.
    """
    if isinstance(stored, bytes):
        return _ADAPTER.validate_json(stored)
    return _ADAPTER.validate_python(stored)
