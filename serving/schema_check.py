"""Checks whether a database has the schema of this version."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import URL, text

from core.postgres import create_engine
from migrations.upgrade import PYPROJECT

if TYPE_CHECKING:
    from collections.abc import Collection

TIMEOUT_SECONDS = 5.0
MIGRATE = "`sentiment migrate`, or `python -m scripts.migrate` in the image"


def schema_problem(url: URL, *, is_migrated_by_start: bool) -> str | None:
    """Describe why the schema does not fit this version; None if it does, or the start mends it.

    Raises:
        Exception: the database cannot be read.
    """
    scripts = ScriptDirectory.from_config(Config(toml_file=PYPROJECT))
    return schema_fault(
        asyncio.run(_revision(url)),
        {script.revision for script in scripts.walk_revisions()},
        scripts.get_current_head(),
        is_migrated_by_start=is_migrated_by_start,
    )


def schema_fault(
    found: str | None, known: Collection[str], newest: str | None, *, is_migrated_by_start: bool
) -> str | None:
    """Describe why revision `found` is not the `newest`; None if nothing is to be done."""
    if found is not None and found not in known:
        return (
            f"it has the revision {found}, which this version does not know; start the version "
            "that made it"
        )
    if found == newest or is_migrated_by_start:
        return None
    if found is None:
        return f"the database has none; run {MIGRATE}"
    return f"it has the revision {found}, and this version needs {newest}; run {MIGRATE}"


async def _revision(url: URL) -> str | None:
    engine = create_engine(url, pool_size=1, timeout_seconds=TIMEOUT_SECONDS)
    try:
        async with engine.connect() as connection:
            if (await connection.scalar(text("SELECT to_regclass('alembic_version')"))) is None:
                return None
            found = await connection.scalar(text("SELECT version_num FROM alembic_version"))
            return None if found is None else str(found)
    finally:
        await engine.dispose()
