"""Alembic creates exactly the schema that the code declares."""

from __future__ import annotations

import asyncio
import io
import os
import socketserver
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import URL, Connection
from sqlalchemy.ext.asyncio import AsyncEngine

import analytics.tables  # noqa: F401  all three declare tables
import core.admin_log  # noqa: F401
import rollout.tables  # noqa: F401
from core.paths import ROOT
from core.postgres import metadata
from loadtest.ports import free_port
from migrations.compatibility import PYPROJECT, known_revisions, read_stamp, scripts
from migrations.upgrade import DatabaseUnreachable, UnknownSchema, upgrade
from tests.database import fetch, run_sql


def difference(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, metadata))


async def test_migrated_schema_equals_the_tables(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        assert await connection.run_sync(difference) == []


def tables(url: URL) -> set[str]:
    return {row["tablename"] for row in fetch(url, "SELECT tablename FROM pg_tables "
                                              "WHERE schemaname = 'public'")}  # fmt: skip


def test_migrations_go_down_and_up_again(database_url: URL) -> None:
    before = tables(database_url)
    config = Config(toml_file=PYPROJECT)
    config.attributes["url"] = database_url
    command.downgrade(config, "base")
    assert tables(database_url) == {"alembic_version"}
    upgrade(database_url)
    assert tables(database_url) == before


def test_migrations_are_rendered_as_sql_without_a_database() -> None:
    script = io.StringIO()
    command.upgrade(Config(toml_file=PYPROJECT, output_buffer=script), "head", sql=True)
    for table in metadata.tables:
        assert f"CREATE TABLE {table} (" in script.getvalue()


def test_migrating_again_changes_nothing(database_url: URL) -> None:
    run_sql(database_url, "INSERT INTO model_versions (version, revision, engine, first_seen) "
                          "VALUES ('v1', 'r', 'fake', now())")  # fmt: skip
    upgrade(database_url)
    assert [row["revision"] for row in fetch(database_url, "SELECT * FROM model_versions")] == ["r"]


def test_constraints_have_the_names_of_the_convention(database_url: URL) -> None:
    rows = fetch(
        database_url,
        "SELECT conname FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace "
        "WHERE n.nspname = 'public' AND contype IN ('c', 'f', 'u', 'p') AND conparentid = 0",
    )
    declared = {str(c.name) for table in metadata.tables.values() for c in table.constraints}
    found = {row["conname"] for row in rows} - {"alembic_version_pkc"}
    assert len(found) > 10
    assert all(name.startswith(("pk_", "fk_", "uq_", "ck_")) for name in found)
    assert len(found) == len(declared)


def test_two_machines_migrate_at_once(template_database: URL) -> None:
    run_sql(template_database, "CREATE DATABASE migrated_twice")
    url = template_database.set(database="migrated_twice")
    environment = os.environ | {"DATABASE_URL": url.render_as_string(hide_password=False)}
    machines = [
        subprocess.Popen([sys.executable, "-m", "scripts.migrate"], cwd=ROOT, env=environment)
        for _ in range(2)
    ]
    assert [machine.wait(60) for machine in machines] == [0, 0]
    assert "predictions" in tables(url)


def stamp_as(url: URL, revision: str, comment: str) -> None:
    run_sql(url, f"UPDATE alembic_version SET version_num = '{revision}'")
    run_sql(url, f"COMMENT ON TABLE alembic_version IS '{comment}'")


@pytest.mark.parametrize(
    ("revision", "comment"),
    [
        ("0005", ""),
        ("9999", ""),
        ("9999", "serves releases that have migration 9998"),
        ("9999", "of the team that runs it"),
    ],
)
def test_a_schema_of_another_version_is_left_as_it_is(
    database_url: URL, revision: str, comment: str
) -> None:
    stamp_as(database_url, revision, comment)
    before = tables(database_url)
    with pytest.raises(UnknownSchema, match=rf"revision {revision}, which this version does not"):
        upgrade(database_url)
    assert tables(database_url) == before


def test_schema_of_a_newer_version_that_serves_this_one_is_taken(database_url: URL) -> None:
    newest = scripts().get_current_head()
    stamp_as(database_url, "9999", f"serves releases that have migration {newest}")
    before = tables(database_url)
    lines: list[str] = []
    upgrade(database_url, report=lines.append)
    assert tables(database_url) == before
    [line] = lines
    assert line == (
        "The schema has the revision 9999 of a newer version, which serves this version too; it "
        "stays as it is"
    )


def test_every_migration_says_which_releases_it_serves(database_url: URL) -> None:
    """Its own at least, and none from before the migration that it follows."""
    revisions = known_revisions()
    config = Config(toml_file=PYPROJECT)
    config.attributes["url"] = database_url
    for script in scripts().walk_revisions():
        command.downgrade(config, script.revision)
        stamp = asyncio.run(read_stamp(database_url))
        assert stamp == (script.revision, script.module.SERVES_SINCE)
        assert script.module.SERVES_SINCE in revisions
        assert script.revision >= script.module.SERVES_SINCE


def test_an_unreachable_database_is_named_without_its_password(postgres_server: URL) -> None:
    nobody = URL.create(
        "postgresql+asyncpg", "ann", "secret", "127.0.0.1", free_port(), "sentiment"
    )
    missing = f"missing_{uuid4().hex}"
    for url, message in [
        (nobody, f"ann:\\*\\*\\*@127.0.0.1:{nobody.port}/sentiment"),
        (postgres_server.set(database=missing), f'"{missing}" does not exist'),
    ]:
        with pytest.raises(DatabaseUnreachable, match=message) as caught:
            upgrade(url)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("57P03", "the database system is starting up"),
        ("57P01", "terminating connection due to administrator command"),
        ("53300", "sorry, too many clients already"),
        ("08004", "the server rejected the connection"),
        ("28P01", "password authentication failed"),
    ],
)
def test_a_refused_connection_is_reported_in_one_line(code: str, reason: str) -> None:
    with refusing_server(code, reason) as port:
        url = URL.create("postgresql+asyncpg", "ann", "secret", "127.0.0.1", port, "sentiment")
        with pytest.raises(DatabaseUnreachable) as caught:
            upgrade(url)
    assert str(caught.value) == (
        f"PostgreSQL at postgresql+asyncpg://ann:***@127.0.0.1:{port}/sentiment cannot be reached: "
        f"{reason}"
    )


@contextmanager
def refusing_server(code: str, reason: str) -> Iterator[int]:
    """A server with PostgreSQL's protocol that answers every login with one error."""
    fields = b"SFATAL\0C%s\0M%s\0\0" % (code.encode(), reason.encode())
    refusal = b"E" + struct.pack("!i", len(fields) + 4) + fields

    class Login(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            [size] = struct.unpack("!i", self.rfile.read(4))
            [version] = struct.unpack("!i", self.rfile.read(size - 4)[:4])
            if version == 80877103:  # a request for TLS comes first
                self.wfile.write(b"N")
                self.rfile.read(struct.unpack("!i", self.rfile.read(4))[0] - 4)
            self.wfile.write(refusal)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Login) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_a_missing_setting_ends_the_command_with_one_line() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    command = [sys.executable, "-m", "scripts.migrate"]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("DATABASE_URL is not set")
    assert len(ended.stderr.splitlines()) == 1
