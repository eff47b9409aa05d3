"""The table of rollout policies: one row for each policy; the newest is active."""

from __future__ import annotations

from typing import get_args

from sqlalchemy import CheckConstraint, Column, DateTime, Integer, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from core.postgres import metadata
from rollout.changes import Action

_actions = ", ".join(repr(action) for action in get_args(Action))

rollout_policies = Table(
    "rollout_policies",
    metadata,
    # Consecutive, so that only one of two admins who change the same policy succeeds.
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("author", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("policy", JSONB, nullable=False),
    CheckConstraint(f"action IN ({_actions})", name="action"),
)
