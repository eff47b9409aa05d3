"""A database that one test after the other has to itself, as if it were new.

To make a database is to copy some 500 files, and to drop it is to delete them: a third of a second
for each of hundreds of tests. To empty the tables that a test has filled takes a tenth of that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import uuid4

import asyncpg
from sqlalchemy import URL

from tests.database import connect, run_sql

# What a test may have changed besides rows. Numbers of partitions and statistics are none of it.
_FINGERPRINT = """
SELECT md5(concat_ws(E'\\n',
    (SELECT string_agg(concat_ws(' ', nspname, nspowner, nspacl), ',' ORDER BY nspname)
        FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'),
    (SELECT string_agg(concat_ws(' ', c.oid, relname, relkind, relowner, relacl, reloptions,
            relpersistence, relrowsecurity), ',' ORDER BY c.oid)
        FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
        WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')),
    (SELECT string_agg(concat_ws(' ', attrelid, attnum, attname, atttypid, atttypmod, attnotnull,
            attisdropped, attacl, attoptions, attstattarget), ',' ORDER BY attrelid, attnum)
        FROM pg_attribute WHERE attrelid >= 16384),
    (SELECT string_agg(concat_ws(' ', oid, conname, convalidated, pg_get_constraintdef(oid)), ','
        ORDER BY oid) FROM pg_constraint WHERE oid >= 16384),
    (SELECT string_agg(concat_ws(' ', indexrelid, indisvalid, indisready), ',' ORDER BY indexrelid)
        FROM pg_index WHERE indexrelid >= 16384),
    (SELECT string_agg(concat_ws(' ', oid, tgname, tgenabled), ',' ORDER BY oid) FROM pg_trigger
        WHERE oid >= 16384),
    (SELECT string_agg(concat_ws(' ', oid, md5(prosrc), proowner, proacl, proconfig), ','
        ORDER BY oid) FROM pg_proc WHERE oid >= 16384),
    (SELECT string_agg(concat_ws(' ', oid, adnum, pg_get_expr(adbin, adrelid)), ',' ORDER BY oid)
        FROM pg_attrdef),
    (SELECT string_agg(rolconfig, ',') FROM (
        SELECT concat_ws(' ', setrole, setconfig) AS rolconfig FROM pg_db_role_setting
        WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
        ORDER BY 1) AS settings),
    (SELECT concat_ws(' ', datdba, datacl, datconnlimit, datallowconn) FROM pg_database
        WHERE datname = current_database()),
    (SELECT string_agg(concat_ws(' ', oid, typname, typowner), ',' ORDER BY oid) FROM pg_type
        WHERE oid >= 16384 AND typtype <> 'c' AND typcategory <> 'A'),
    (SELECT string_agg(concat_ws(' ', oid, extname), ',' ORDER BY oid) FROM pg_extension),
    (SELECT string_agg(concat_ws(' ', stxname, stxowner), ',') FROM pg_statistic_ext),
    (SELECT string_agg(concat_ws(' ', classoid, objoid, objsubid, description), ','
        ORDER BY classoid, objoid, objsubid) FROM pg_description WHERE objoid >= 16384)
))
"""
_RELATIONS = """
SELECT relkind::text AS kind, c.oid::regclass::text AS name, inhparent::regclass::text AS parent
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    LEFT JOIN pg_inherits ON inhrelid = c.oid AND relispartition
WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
    AND relkind IN ('r', 'p', 'S')
"""
_END_OTHERS = """
SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


class ReusedDatabase:
    """A copy of a template, made when it is first needed, and again after a test that changed it.

    Rows, sequences and new tables are no such change: they are taken back.
    """

    def __init__(self, template: URL, template_name: str) -> None:
        self._template = template
        self._template_name = template_name
        self._state: _State | None = None

    def take(self) -> URL:
        """The database, as the template is."""
        if self._state is None:
            name = f"test_{uuid4().hex}"
            run_sql(self._template, f"CREATE DATABASE {name} TEMPLATE {self._template_name}")
            url = self._template.set(database=name)
            self._state = asyncio.run(_state_of(url))
        return self._state.url

    def give_back(self) -> None:
        """End what is connected, and take back what the test did."""
        if self._state is None or not asyncio.run(_is_as_before(self._state)):
            self.drop()

    def drop(self) -> None:
        if self._state is not None:
            run_sql(
                self._template, f"DROP DATABASE IF EXISTS {self._state.url.database} WITH (FORCE)"
            )
            self._state = None


@dataclass(frozen=True)
class _State:
    """What a database was like before the first test."""

    url: URL
    fingerprint: str
    relations: dict[str, str]  # the kinds by name; without partitions, which go with their table
    parts: frozenset[str]
    rows: dict[str, list[asyncpg.Record]]
    sequences: dict[str, tuple[int, bool]]


async def _state_of(url: URL) -> _State:
    connection = await connect(url)
    try:
        found = await connection.fetch(_RELATIONS)
        relations = {row["name"]: row["kind"] for row in found if row["parent"] is None}
        tables = [name for name, kind in relations.items() if kind != "S"]
        filled = await _filled(connection, tables)
        return _State(
            url,
            await connection.fetchval(_FINGERPRINT),
            relations,
            frozenset(row["name"] for row in found if row["parent"] is not None),
            {name: await connection.fetch(f"TABLE {name}") for name in filled},
            await _sequences(connection, relations),
        )
    finally:
        await connection.close()


async def _is_as_before(state: _State) -> bool:
    """Take back what a test did; False if that is not enough."""
    try:
        connection = await connect(state.url)
    except (OSError, asyncpg.PostgresError):
        return False
    try:
        await connection.fetchval(_END_OTHERS)
        # Also rows that a trigger keeps for ever.
        await connection.execute("SET session_replication_role = replica")
        tables = [name for name, kind in state.relations.items() if kind != "S"]
        filled = await _filled(connection, tables)
        changed = [
            name for name in {*filled, *state.rows}
            if name not in state.rows
            or await connection.fetch(f"TABLE {name}") != state.rows[name]
        ]  # fmt: skip
        if changed:
            await connection.execute(f"TRUNCATE {', '.join(changed)} RESTART IDENTITY CASCADE")
        for name in changed:
            for row in state.rows.get(name, ()):
                marks = ", ".join(f"${number}" for number in range(1, len(row) + 1))
                await connection.execute(
                    f"INSERT INTO {name} OVERRIDING SYSTEM VALUE VALUES ({marks})",
                    *row.values(),
                )
        for name, (value, is_called) in state.sequences.items():
            await connection.execute("SELECT setval($1::regclass, $2, $3)", name, value, is_called)
        await _drop_new(connection, state)
        return bool(await connection.fetchval(_FINGERPRINT) == state.fingerprint)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    finally:
        await connection.close()


async def _drop_new(connection: asyncpg.Connection, state: _State) -> None:
    """Drop tables that were not there; partitions are empty, and leave their table first.

    To drop one from its place would drop the foreign keys of the tables that refer to its table.
    """
    for row in await connection.fetch(_RELATIONS):
        if row["kind"] == "S" or row["name"] in state.relations.keys() | state.parts:
            continue
        if row["parent"] is not None:
            await connection.execute(f"ALTER TABLE {row['parent']} DETACH PARTITION {row['name']}")
        await connection.execute(f"DROP TABLE {row['name']}")


async def _filled(connection: asyncpg.Connection, tables: Sequence[str]) -> list[str]:
    each = " UNION ALL ".join(
        f"SELECT '{name}' AS name WHERE EXISTS (SELECT FROM {name})" for name in tables
    )
    return [row["name"] for row in await connection.fetch(each)]


async def _sequences(
    connection: asyncpg.Connection, relations: Mapping[str, str]
) -> dict[str, tuple[int, bool]]:
    found = {}
    for name in (name for name, kind in relations.items() if kind == "S"):
        row = await connection.fetchrow(f"SELECT last_value, is_called FROM {name}")
        found[name] = row["last_value"], row["is_called"]
    return found
