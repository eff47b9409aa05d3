"""A PostgreSQL of a test's own, for the tests of the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import URL

from migrations.upgrade import upgrade
from serving.embedded.postgres import embedded_postgres


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[tuple[ExitStack, Path, URL]]:
    """A PostgreSQL that a test may stop: its exit stack, folder and URL."""
    folder = tmp_path / "postgres"
    with ExitStack() as running:
        url = running.enter_context(embedded_postgres(folder))
        upgrade(url)
        yield running, folder, url
