"""Real servers for the tests: PostgreSQL, Redis, saved models, a served Bento."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.database import create_engine
from scripts.embedded import embedded_postgres, embedded_redis
from scripts.migrate import upgrade
from tests.database import run_sql
from tests.serving import ServedBento, serve

ROOT = Path(__file__).parent.parent
TEMPLATE = "migrated"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """A PostgreSQL of this test run's own."""
    with TemporaryDirectory() as folder, embedded_postgres(Path(folder) / "data") as url:
        yield url


@pytest.fixture
def postgres_folder() -> Iterator[Path]:
    """A folder for a test that starts a PostgreSQL itself.

    Not in tmp_path: each pytest that starts as root shuts the folder that all of them share to
    everybody else, and so to the user that PostgreSQL runs as beside it.
    """
    with TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def template_database(postgres_server: URL) -> URL:
    """A database at the newest schema, to be copied by each test that wants one."""
    run_sql(postgres_server, f"CREATE DATABASE {TEMPLATE}")
    upgrade(postgres_server.set(database=TEMPLATE))
    return postgres_server


@pytest.fixture
def database_url(template_database: URL) -> Iterator[URL]:
    """A fresh, migrated database for one test."""
    name = f"test_{uuid4().hex}"
    run_sql(template_database, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield template_database.set(database=name)
    run_sql(template_database, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def engine(database_url: URL) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url, pool_size=5, timeout_seconds=5)
    yield engine
    await engine.dispose()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis-compatible server of this test run's own."""
    with embedded_redis(tmp_path_factory.mktemp("redis"), max_memory="64mb") as url:
        yield url


@pytest.fixture
async def redis(redis_server: str) -> AsyncIterator[Redis]:
    """A client of an empty Redis database."""
    client = Redis.from_url(redis_server)
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture(scope="session")
def bentoml_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BentoML model store with both starter versions, saved by the command that users run."""
    home = tmp_path_factory.mktemp("bentoml")
    subprocess.run(
        [sys.executable, "-m", "scripts.save_models"],
        cwd=ROOT,
        env=os.environ | {"BENTOML_HOME": str(home)},
        check=True,
        timeout=600,
    )
    return home


@pytest.fixture(scope="session")
def served(
    postgres_server: URL,
    redis_server: str,
    bentoml_home: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServedBento]:
    """A served Bento on its own database, for tests that do not break anything."""
    run_sql(postgres_server, "CREATE DATABASE served")
    database_url = postgres_server.set(database="served")
    upgrade(database_url)
    with serve(
        bentoml_home,
        database_url,
        redis_server.removesuffix("/0") + "/1",
        log=tmp_path_factory.mktemp("served") / "log",
        TEXT_STORAGE="full",
    ) as bento:
        yield bento
