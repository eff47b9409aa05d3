"""A service leaves a spool alone whose predictions a running one stores in another database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.log.destination import FILE, Destination, destination_of, note, noted
from analytics.log.segments import new_segment
from analytics.log.shipper_supervisor import LOCK, FolderLock
from serving.spool_check import spool_problem
from tests.database import run_sql


@pytest.fixture
def shipped(tmp_path: Path) -> Iterator[Path]:
    """A spool that a service ships."""
    folder = tmp_path / "spool"
    with closing(FolderLock(folder / LOCK)) as lock:
        assert lock.acquire()
        yield folder


@pytest.fixture
def other_url(named_database: Callable[[str], URL], postgres_server: URL) -> Iterator[URL]:
    """Another database of the same server, a copy of the same template."""
    url = named_database("other")
    yield url
    run_sql(postgres_server, f"DROP DATABASE {url.database} WITH (FORCE)")


async def noted_by(engine: AsyncEngine, folder: Path) -> None:
    async with engine.connect() as connection:
        destination = await destination_of(connection)
    assert destination is not None
    note(folder, destination)


async def test_start_beside_a_service_with_another_database_is_refused_by_name(
    shipped: Path, engine: AsyncEngine, database_url: URL, other_url: URL
) -> None:
    await noted_by(engine, shipped)
    problem = await asyncio.to_thread(spool_problem, shipped, other_url)
    assert problem is not None
    assert str(shipped.parent) in problem
    assert str(database_url.database) in problem
    assert await asyncio.to_thread(spool_problem, shipped, database_url) is None


async def test_spool_that_nobody_ships_is_free_for_any_database(
    tmp_path: Path, engine: AsyncEngine, other_url: URL
) -> None:
    (tmp_path / LOCK).touch()
    await noted_by(engine, tmp_path)
    assert await asyncio.to_thread(spool_problem, tmp_path, other_url) is None


@pytest.mark.parametrize(
    "content", [None, b"", b"{}", b"[]", b"null", b"\xff", b"[" * 4_096, b'{"id": 1}', b"9" * 5_000]
)
def test_spool_of_an_unknown_database_is_free(
    shipped: Path, database_url: URL, content: bytes | None
) -> None:
    if content is not None:
        (shipped / FILE).write_bytes(content)
    assert noted(shipped) is None
    assert spool_problem(shipped, database_url) is None


async def test_database_that_is_away_hinders_no_start(
    shipped: Path, engine: AsyncEngine, database_url: URL
) -> None:
    await noted_by(engine, shipped)
    away = database_url.set(database="absent")
    assert await asyncio.to_thread(spool_problem, shipped, away) is None


@pytest.fixture
def unprivileged_url(database_url: URL) -> Iterator[URL]:
    """The database as a role that may not ask for the cluster's identifier."""
    role, name = f"role_{uuid4().hex}", database_url.database
    run_sql(database_url, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    run_sql(database_url, f"CREATE ROLE {role}")
    run_sql(database_url, f"ALTER DATABASE {name} SET role = '{role}'")
    yield database_url
    admin = database_url.set(database="postgres")
    run_sql(admin, f"ALTER DATABASE {name} RESET ALL")
    run_sql(admin, f"DROP ROLE {role}")


async def test_role_that_may_not_know_the_database_hinders_no_start(
    shipped: Path, unprivileged_url: URL, engine: AsyncEngine
) -> None:
    async with engine.connect() as connection:
        assert await destination_of(connection) is None
    note(shipped, Destination("1/2", "postgresql:///other"))
    assert await asyncio.to_thread(spool_problem, shipped, unprivileged_url) is None


async def test_shipper_says_that_what_waits_may_be_of_another_database(
    tmp_path: Path, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    await noted_by(engine, tmp_path)
    other = Destination("1/2", "postgresql:///other")
    caplog.set_level(logging.WARNING)
    note(tmp_path, other)
    assert not caplog.records, "nothing waits"
    await noted_by(engine, tmp_path)
    new_segment(tmp_path, datetime.now(UTC)).touch()
    note(tmp_path, other)
    [warning] = caplog.messages
    assert f"another database, {engine.url.set(drivername='postgresql')}" in warning
    note(tmp_path, other)
    assert len(caplog.messages) == 1
