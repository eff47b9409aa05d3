"""Alembic's entry point: migrates the database of DATABASE_URL, one process at a time."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection, text

# All three declare their tables, for autogenerate.
import analytics.tables  # noqa: F401
import core.admin_log  # noqa: F401
import rollout.tables  # noqa: F401
from core.postgres import create_engine, metadata
from core.settings import get_settings
from migrations.compatibility import store_comment
from migrations.upgrade import ADVISORY_LOCK, LOCK_TIMEOUT


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transaction_per_migration=False,
        compare_type=True,
        on_version_apply=store_comment,
    )
    with context.begin_transaction():
        # Several machines may start at once; the others wait here and then have nothing to migrate.
        connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        context.run_migrations()


async def migrate_online() -> None:
    url = context.config.attributes.get("url") or get_settings().sqlalchemy_url()
    engine = create_engine(url, pool_size=1, timeout_seconds=None)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    context.configure(
        dialect_name="postgresql",
        target_metadata=metadata,
        literal_binds=True,
        on_version_apply=store_comment,
    )
    with context.begin_transaction():
        context.run_migrations()
else:
    asyncio.run(migrate_online())
