"""The table of rollout policies: each that ever was in force is a row; the newest is."""

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
    # One after the other, so that of two admins who start from the same one, one is refused.
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("author", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("policy", JSONB, nullable=False),
    CheckConstraint(f"action IN ({_actions})", name="action"),
)
