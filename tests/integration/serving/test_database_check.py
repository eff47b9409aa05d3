"""A start, a migration and `sentiment doctor` on a PostgreSQL that cannot be used as it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import URL

from loadtest.ports import free_port
from migrations.upgrade import DatabaseUnreachable, RefusedMigration, upgrade
from serving.database_check import (
    UnusableDatabase,
    database_fault,
    database_problem,
    version_problem,
)
from tests.clusters import MIGRATED, postgres_in
from tests.database import run_sql, scalar
from tests.integration.migrations.test_schema import refusing_server
from tests.served.cable import Cable
from tests.waiting import wait_until

RIGHTS = "SELECT, INSERT, UPDATE, DELETE"
Restrict = Callable[..., URL]


@pytest.fixture
def restrict(database_url: URL) -> Iterator[Restrict]:
    """Makes a role, runs statements about it, and lets the database be used as that role."""
    role = f"role_{uuid4().hex}"
    admin = database_url.set(database="postgres")
    run_sql(admin, f"CREATE ROLE {role}")

    def make(*statements: str) -> URL:
        for statement in statements:
            run_sql(database_url, statement.format(role=role, database=database_url.database))
        run_sql(
            admin, f"ALTER ROLE postgres IN DATABASE {database_url.database} SET role = '{role}'"
        )
        return database_url

    yield make
    run_sql(admin, f"ALTER ROLE postgres IN DATABASE {database_url.database} RESET ALL")
    for statement in (f"REASSIGN OWNED BY {role} TO postgres", f"DROP OWNED BY {role}"):
        run_sql(database_url, statement)
    run_sql(admin, f"DROP ROLE {role}")


USE = f"GRANT {RIGHTS} ON ALL TABLES IN SCHEMA public TO {{role}}"
CREATE = "GRANT CREATE ON SCHEMA public TO {role}"
OWN = "ALTER TABLE predictions OWNER TO {role}"
NO_TEMP = "REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC"
READ_ONLY = "ALTER ROLE postgres IN DATABASE {database} SET default_transaction_read_only = on"
EVERY = "CREATE TABLE e PARTITION OF predictions FOR VALUES FROM (MINVALUE) TO (MAXVALUE)"
DEFAULT = "CREATE TABLE rest PARTITION OF predictions DEFAULT"


@pytest.mark.parametrize(
    ("statements", "problem"),
    [
        ([USE, CREATE, OWN], None),
        ([USE, DEFAULT], None),
        ([USE, EVERY], None),
        ([USE, CREATE, OWN, NO_TEMP], "may not create temporary tables, .* run GRANT TEMPORARY ON"),
        ([USE, CREATE, OWN, NO_TEMP, "GRANT TEMP ON DATABASE {database} TO {role}"], None),
        ([USE], "may not make the partition of a day: it has to own the table predictions"),
        ([USE, CREATE], "may not make the partition of a day"),
        ([USE, OWN], "may not make the partition of a day"),
        ([], "lacks the right SELECT on the table"),
        (["GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"], "lacks the right INSERT on"),
        ([USE, CREATE, OWN, "REVOKE DELETE ON rollups FROM {role}"],
         "lacks the right DELETE on the table rollups; run GRANT"),
        ([USE, "DROP TABLE rollout_policies"], "it has no table rollout_policies; run `make migr"),
        ([USE, CREATE, OWN, "ALTER TABLE predictions DROP CONSTRAINT pk_predictions CASCADE"],
         "the table predictions has lost its primary key, .* restore the backup again"),
        (["DROP SCHEMA public CASCADE"], "may use no schema of its search_path; run GRANT"),
        (["DROP SCHEMA public CASCADE", "CREATE SCHEMA public"], "may use no schema of its"),
        (["DROP SCHEMA public CASCADE", "CREATE SCHEMA public",
          "GRANT USAGE ON SCHEMA public TO {role}"],
         "may not create tables in the schema public; run GRANT CREATE ON SCHEMA public TO role_"),
        (["DROP SCHEMA public CASCADE", "CREATE SCHEMA public AUTHORIZATION {role}"],
         "it has no tables of the service; run `make migrate`"),
        ([USE, CREATE, OWN, READ_ONLY], "its sessions are read-only"),
    ],
)  # fmt: skip
def test_missing_right_is_named_with_its_remedy(
    restrict: Restrict, statements: list[str], problem: str | None
) -> None:
    found = database_problem(restrict(*statements))
    if problem is None:
        assert found is None
    else:
        assert found is not None
        assert re.search(problem, found), found
        assert "\n" not in found


@pytest.mark.parametrize(
    ("number", "is_refused"),
    [(90_624, True), (120_022, True), (130_023, True), (140_000, False), (180_004, False)],
)
def test_old_version_is_refused_and_told(number: int, is_refused: bool) -> None:
    problem = version_problem(number, "13.4 (Debian)")
    assert (problem == "it is version 13.4 (Debian), and the service needs 14 or later") is (
        is_refused
    )
    assert (problem is None) is not is_refused


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_database_that_cannot_hold_every_text_is_refused(
    postgres_server: URL, encoding: str
) -> None:
    name = f"test_{uuid4().hex}"
    run_sql(
        postgres_server,
        f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C' "
        "TEMPLATE template0",
    )
    url = postgres_server.set(database=name)
    says = f"the database has the encoding {encoding}; make one with ENCODING"
    with pytest.raises(UnusableDatabase, match=says):
        database_fault(url)
    with pytest.raises(RefusedMigration, match=says):
        upgrade(url)
    assert says in str(database_problem(url))
    run_sql(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


def test_database_that_cannot_be_reached_is_named_without_its_password() -> None:
    url = URL.create("postgresql+asyncpg", "ann", "secret", "127.0.0.1", free_port(), "d")
    problem = database_problem(url)
    assert problem is not None
    assert "ann:***@127.0.0.1" in problem
    assert "cannot be reached" in problem
    assert "secret" not in problem


@pytest.mark.parametrize(
    ("statements", "hint"),
    [
        ([], "GRANT USAGE, CREATE ON SCHEMA public"),
        (["GRANT USAGE ON SCHEMA public TO {role}"], "permission denied for schema public"),
        (["DROP SCHEMA public"], "no schema has been selected"),
    ],
)
def test_migration_without_rights_says_which(
    restrict: Restrict, statements: list[str], hint: str
) -> None:
    url = restrict("DROP SCHEMA public CASCADE", "CREATE SCHEMA public", *statements)
    with pytest.raises(RefusedMigration, match=hint) as caught:
        upgrade(url)
    assert "\n" not in str(caught.value)


def test_migrated_database_needs_no_right_to_migrate(restrict: Restrict) -> None:
    upgrade(restrict("GRANT SELECT ON alembic_version TO {role}"))


def test_migration_into_the_tables_of_another_program_is_refused(database_url: URL) -> None:
    run_sql(database_url, "DROP SCHEMA public CASCADE")
    run_sql(database_url, "CREATE SCHEMA public")
    run_sql(database_url, "CREATE TABLE predictions (id integer)")
    with pytest.raises(RefusedMigration, match=r"already exists\. Another program has tables"):
        upgrade(database_url)


def test_database_that_comes_up_late_is_waited_for_with_one_line(
    database_url: URL, tmp_path: Path
) -> None:
    socket = ".s.PGSQL.5432"
    cable = Cable(Path(str(database_url.query["host"])) / socket)
    late = database_url.update_query_dict({"host": str(tmp_path)})
    lines: list[str] = []
    with ExitStack() as up:

        def come_up(line: str) -> None:
            lines.append(line)
            up.enter_context(cable.listening(tmp_path / socket))

        upgrade(late, wait_seconds=30, report=come_up)
    [line] = lines
    assert line.endswith("; waiting for it for 30 s at most")
    assert "does not answer yet" in line


@pytest.mark.parametrize(
    ("code", "is_late"),
    [
        ("57P03", True), ("53300", True), ("57P01", True), ("08006", True), ("57P02", True),
        ("28P01", False), ("28000", False), ("3D000", False), ("42501", False), ("0A000", False),
    ],
)  # fmt: skip
def test_wait_is_for_what_passes_and_has_a_bound(code: str, is_late: bool) -> None:
    lines: list[str] = []
    with refusing_server(code, "not now") as port:
        url = URL.create("postgresql+asyncpg", "ann", "secret", "127.0.0.1", port, "sentiment")
        with pytest.raises(DatabaseUnreachable, match="cannot be reached: not now"):
            upgrade(url, wait_seconds=0.2, report=lines.append)
    assert len(lines) == is_late
    assert "secret" not in "".join(lines)


def test_reason_of_a_server_is_cut_and_steers_no_terminal() -> None:
    with refusing_server("99999", "\x1b]0;title\x07" + 50_000 * "x") as port:
        url = f"postgresql+asyncpg://ann:secret@127.0.0.1:{port}/sentiment"
        ended = subprocess.run(
            [sys.executable, "-m", "scripts.doctor"],
            env=os.environ | {"DATABASE_URL": url, "REDIS_URL": "redis://127.0.0.1:1/0"},
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )
    shown = ended.stdout + ended.stderr
    assert ended.returncode == 1, shown
    assert "title" in shown
    assert "\x1b" not in shown
    assert shown.count("x") < 1_500
    assert "secret" not in shown


def test_server_that_does_not_wait_for_its_disk_is_named(
    template_database: URL, tmp_path: Path
) -> None:
    del template_database  # whose cluster is copied
    with postgres_in(tmp_path / "cluster") as server:
        url = server.set(database=MIGRATED)
        assert database_problem(url) is None
        run_sql(url, "ALTER SYSTEM SET fsync = off")
        run_sql(url, "SELECT pg_reload_conf()")
        wait_until(lambda: scalar(url, "SHOW fsync") == "off", 10)
        problem = database_problem(url)
    assert "fsync is off" in (problem or "")
