"""Checks whether a database has the schema of this version."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy import URL

from migrations.compatibility import Stamp, known_revisions, read_stamp, scripts

if TYPE_CHECKING:
    from collections.abc import Collection

MIGRATE = "`sentiment migrate`"


def schema_problem(url: URL, *, is_migrated_by_start: bool) -> str | None:
    """Describe why the schema does not fit this version; None if it does, or the start mends it.

    Raises:
        Exception: the database cannot be read.
    """
    return schema_fault(
        asyncio.run(read_stamp(url)),
        known_revisions(),
        scripts().get_current_head(),
        is_migrated_by_start=is_migrated_by_start,
    )


def schema_fault(
    found: Stamp, known: Collection[str], newest: str | None, *, is_migrated_by_start: bool
) -> str | None:
    """Describe why what was `found` is not the `newest`; None if nothing is to be done."""
    revision = found.revision
    if revision is not None and revision not in known:
        if found.serves_since in known:
            return None
        return (
            f"it has the revision {revision}, which this version does not know; start the version "
            "that made it"
        )
    if revision == newest or is_migrated_by_start:
        return None
    if revision is None:
        return f"the database has none; run {MIGRATE}"
    return f"it has the revision {revision}, and this version needs {newest}; run {MIGRATE}"
