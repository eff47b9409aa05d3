"""Which releases may serve a schema: a release that is rolled back finds a newer one.

Each migration says by `SERVES_SINCE` which migration a release must have at least to serve the
schema that it makes. The newest one's is stored as the comment of Alembic's table, where a release
reads it that does not know the migration itself (docs/decisions/0046).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from alembic.config import Config
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import ScriptDirectory
from sqlalchemy import URL, text

from core.paths import ROOT
from core.postgres import create_engine

PYPROJECT = ROOT / "pyproject.toml"
TIMEOUT_SECONDS = 5.0
_COMMENT = re.compile(r"serves releases that have migration (\w+)")


class Stamp(NamedTuple):
    """The migration that a database is at, and the one that a release needs to serve it.

    Both are None without a schema, the second also for migrations that stored none.
    """

    revision: str | None
    serves_since: str | None


def scripts() -> ScriptDirectory:
    """The migrations of this release."""
    return ScriptDirectory.from_config(Config(toml_file=PYPROJECT))


def known_revisions() -> set[str]:
    return {script.revision for script in scripts().walk_revisions()}


def store_comment(
    ctx: MigrationContext, step: MigrationInfo, heads: Collection[str], run_args: Mapping[str, Any]
) -> None:
    """Store what the migration says that was just applied; Alembic calls this after each."""
    del step, run_args  # Alembic passes all four by name
    for head in heads:
        serves_since = scripts().get_revision(head).module.SERVES_SINCE
        ctx.execute(
            f"COMMENT ON TABLE alembic_version IS 'serves releases that have migration "
            f"{serves_since}'"
        )


async def read_stamp(url: URL) -> Stamp:
    """Read it from a database that answers.

    Raises:
        Exception: the database cannot be read.
    """
    engine = create_engine(url, pool_size=1, timeout_seconds=TIMEOUT_SECONDS)
    try:
        async with engine.connect() as connection:
            if (await connection.scalar(text("SELECT to_regclass('alembic_version')"))) is None:
                return Stamp(None, None)
            revision = await connection.scalar(text("SELECT version_num FROM alembic_version"))
            comment = await connection.scalar(
                text("SELECT obj_description('alembic_version'::regclass, 'pg_class')")
            )
    finally:
        await engine.dispose()
    said = _COMMENT.fullmatch(comment or "")
    return Stamp(revision, said and said[1])
