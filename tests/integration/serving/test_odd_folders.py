"""The private databases run in folders of any name, and connect through the URLs of the start."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from core.settings import Settings
from serving.embedded.postgres import embedded_postgres
from serving.embedded.redis import embedded_redis
from tests.database import scalar
from tests.unit.core.settings_of import settings

NAMES = ["a b,c:d'e\"f", "a#b?c%20d%", "-a$HOME`b\\c", "ä日" + "x" * 90]


@pytest.mark.parametrize("name", NAMES)
def test_private_databases_run_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    with (
        embedded_postgres(folder / "postgres") as url,
        embedded_redis(folder / "redis", max_memory="64mb") as redis_url,
    ):
        parsed: Settings = settings(
            database_url=url.render_as_string(hide_password=False), redis_url=redis_url
        )
        assert scalar(parsed.sqlalchemy_url(), "SELECT 1") == 1
        with Redis.from_url(parsed.redis_connection_url()) as client:
            assert client.ping()
