"""A server on which nothing is wrong: that of the suite does not wait for its disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest
from sqlalchemy import URL

from tests.clusters import MIGRATED, postgres_in
from tests.database import run_sql


@pytest.fixture(scope="session")
def durable_server(template_database: URL) -> Iterator[URL]:
    """A PostgreSQL as a start makes it, beside that of the suite."""
    del template_database  # whose cluster is copied
    with TemporaryDirectory() as folder, postgres_in(Path(folder) / "data") as url:
        yield url


@pytest.fixture
def durable_database_url(durable_server: URL) -> Iterator[URL]:
    """A fresh, migrated database of it for one test."""
    name = f"test_{uuid4().hex}"
    run_sql(durable_server, f"CREATE DATABASE {name} TEMPLATE {MIGRATED}")
    yield durable_server.set(database=name)
    run_sql(durable_server, f"DROP DATABASE {name} WITH (FORCE)")
