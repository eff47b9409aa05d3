"""The log of admin actions, a table that PostgreSQL lets nobody change (migration 0013)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, Identity, Insert, Table, Text, insert
from sqlalchemy.dialects.postgresql import JSONB

from core.postgres import metadata

admin_actions = Table(
    "admin_actions",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("author", Text, nullable=False),
    # The client's address, or the name of the machine of a command.
    Column("origin", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("details", JSONB, nullable=False),
)


def admin_action(
    at: datetime,
    *,
    author: str,
    origin: str,
    action: str,
    reason: str,
    details: Mapping[str, Any],
) -> Insert:
    """The statement that logs an action; it belongs in the transaction of the action itself."""
    return insert(admin_actions).values(
        created_at=at,
        author=author,
        origin=origin,
        action=action,
        reason=reason,
        details=dict(details),
    )
