"""All processes make the same keys in Redis, whatever is away when they start."""

from __future__ import annotations

import stat
from pathlib import Path

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.hash_keys import HashKeys, add_key
from cache.keys import CacheKeys
from core.postgres import create_engine
from serving.cache_secret import CacheSecret
from tests.waiting import until


async def secret_after_start(
    engine: AsyncEngine, file: Path, expected: bytes, *configured: bytes
) -> bytes:
    """The secret of a process that starts, once it is the expected one and its copy is written."""
    keys = CacheKeys()
    watch = CacheSecret(keys, engine, configured, file)
    watch.start()
    try:
        await until(lambda: keys.secret == expected)
        # A stop in between leaves the copy to the next start.
        await until(lambda: bool(configured) or (file.exists() and file.read_bytes() == expected))
    finally:
        await watch.stop()
    return keys.secret


async def newest(engine: AsyncEngine) -> bytes:
    hashes = HashKeys()
    await hashes.refresh(engine)
    return hashes.current_secret


async def test_processes_share_the_key_of_the_log_and_follow_a_new_one(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    first, file = await newest(engine), tmp_path / "one" / "cache.key"
    await secret_after_start(engine, file, first)
    await secret_after_start(engine, tmp_path / "two" / "cache.key", first)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    async with engine.begin() as connection:
        await add_key(connection)
    second = await newest(engine)
    assert second != first
    await secret_after_start(engine, file, second)


async def test_copy_is_taken_while_postgresql_is_away(tmp_path: Path) -> None:
    away = URL.create("postgresql+asyncpg", username="nobody", query={"host": str(tmp_path)})
    engine, file = create_engine(away, pool_size=1, timeout_seconds=1), tmp_path / "cache.key"
    file.write_bytes(b"s" * 32)
    await secret_after_start(engine, file, b"s" * 32)
    file.write_bytes(b"half of it")
    keys = CacheKeys(b"random" * 6)
    CacheSecret(keys, engine, (), file)
    assert keys.secret == b"random" * 6
    await engine.dispose()


async def test_key_of_the_setting_needs_no_postgresql_and_no_copy(tmp_path: Path) -> None:
    away = URL.create("postgresql+asyncpg", username="nobody", query={"host": str(tmp_path)})
    engine, file = create_engine(away, pool_size=1, timeout_seconds=1), tmp_path / "cache.key"
    await secret_after_start(engine, file, b"n" * 32, b"n" * 32, b"o" * 32)
    assert not file.exists()
    await engine.dispose()
