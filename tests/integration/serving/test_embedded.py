"""The private servers keep their data over a stop and a start."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from serving.embedded.databases import UnusableFolder, embedded_postgres, embedded_redis
from tests.database import run_sql, scalar


def test_postgres_keeps_its_data(postgres_folder: Path) -> None:
    folder = postgres_folder / "new" / "postgres"
    with embedded_postgres(folder) as url:
        run_sql(url, "CREATE TABLE kept AS SELECT 7 AS value")
    assert not (folder / "postmaster.pid").exists()
    with embedded_postgres(folder) as url:
        assert scalar(url, "SELECT value FROM kept") == 7


def test_a_folder_that_postgres_cannot_use_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableFolder, match="DATA_FOLDER"), embedded_postgres(tmp_path / "a b"):
        raise AssertionError


def test_redis_keeps_its_data_and_bounds_its_memory(tmp_path: Path) -> None:
    for stored in (None, b"1"):
        with embedded_redis(tmp_path, max_memory="32mb") as url, Redis.from_url(url) as redis:
            assert redis.get("kept") == stored
            redis.set("kept", b"1")
            assert redis.config_get("maxmemory") == {"maxmemory": str(32 * 1_048_576)}
            assert redis.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}
