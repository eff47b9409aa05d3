"""Real servers for the tests: PostgreSQL, Redis, saved models, a served Bento."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from core.postgres import create_engine
from migrations.upgrade import upgrade
from serving.embedded.databases import embedded_postgres, embedded_redis
from tests.database import run_sql
from tests.serving import ServedBento, serve
from tests.store import SavingModels

TEMPLATE = "migrated"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is served comes last, when the models have been saved, and is not what is traced."""
    items.sort(key=_is_served)
    for item in items:
        if _is_served(item):
            item.add_marker(pytest.mark.no_cover)


def _is_served(item: pytest.Item) -> bool:
    return not {"served", "prove"}.isdisjoint(item.path.parts)


@pytest.fixture(scope="session", autouse=True)
def saving_models(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SavingModels | None]:
    needed = any(
        "bentoml_home" in getattr(item, "fixturenames", ()) for item in request.session.items
    )
    saving = SavingModels(tmp_path_factory.mktemp("bentoml")) if needed else None
    yield saving
    if saving is not None:
        saving.end()


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


@pytest.fixture(scope="session")
def named_database(template_database: URL) -> Callable[[str], URL]:
    """Makes a migrated database of a name, for a whole run."""

    def make(name: str) -> URL:
        run_sql(template_database, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return template_database.set(database=name)

    return make


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
def bentoml_home(saving_models: SavingModels | None) -> Path:
    """A BentoML model store with both starter versions, saved by the command that users run."""
    assert saving_models is not None
    return saving_models.wait()


@pytest.fixture(scope="session")
def served(
    named_database: Callable[[str], URL],
    redis_server: str,
    bentoml_home: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServedBento]:
    """A served Bento on its own database, for tests that do not break anything."""
    with serve(
        bentoml_home,
        named_database("served"),
        redis_server.removesuffix("/0") + "/1",
        log=tmp_path_factory.mktemp("served") / "log",
        TEXT_STORAGE="full",
        # However busy the machine is: what is refused is a matter of `unlimited`.
        MAX_QUEUE_SECONDS="30",
        MAX_BULK_QUEUE_SECONDS="30",
    ) as bento:
        yield bento


@pytest.fixture(scope="session")
def unlimited(
    named_database: Callable[[str], URL],
    redis_server: str,
    bentoml_home: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServedBento]:
    """The same without rate limits, for tests that ask for much."""
    with serve(
        bentoml_home,
        named_database("unlimited"),
        redis_server.removesuffix("/0") + "/2",
        log=tmp_path_factory.mktemp("unlimited") / "log",
        RATE_LIMIT_PREDICT="off",
        RATE_LIMIT_BATCH="off",
        RATE_LIMIT_ANALYTICS="off",
    ) as bento:
        yield bento
