"""A PostgreSQL of a test's own, for the tests of the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.clusters import MIGRATED, postgres_in


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[tuple[ExitStack, Path, URL]]:
    """A PostgreSQL that a test may stop: its exit stack, folder and URL."""
    folder = tmp_path / "postgres"
    with ExitStack() as running:
        url = running.enter_context(postgres_in(folder)).set(database=MIGRATED)
        yield running, folder, url
