"""A database that tests use one after the other is as new for each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from tests.clusters import MIGRATED
from tests.database import fetch, run_sql
from tests.reused_database import ReusedDatabase

STATE = """SELECT (SELECT count(*) FROM predictions) AS predictions,
    (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace) AS relations,
    (SELECT string_agg(log_hash_keys::text, ',') FROM log_hash_keys) AS keys,
    (SELECT count(*) FROM pg_constraint) AS constraints"""
INSERT = """INSERT INTO model_versions (version, revision, engine, first_seen)
    VALUES ('v1', 'r', 'e', now()) RETURNING id"""
PARTITION = """CREATE TABLE predictions_9 PARTITION OF predictions
    FOR VALUES FROM ('70000000-0000-7000-8000-000000000000')
    TO ('70000000-0000-7000-8000-000000000001')"""


@pytest.fixture
def reused(template_database: URL) -> Iterator[ReusedDatabase]:
    made = ReusedDatabase(template_database, MIGRATED)
    yield made
    made.drop()


@pytest.mark.parametrize(
    "change",
    [
        PARTITION,
        "CREATE TABLE other (id int PRIMARY KEY)",
        "DELETE FROM log_hash_keys",
        "ALTER SEQUENCE model_versions_id_seq RESTART WITH 7",
    ],
)
def test_rows_and_tables_of_a_test_are_taken_back(reused: ReusedDatabase, change: str) -> None:
    url = reused.take()
    before, first = fetch(url, STATE), fetch(url, INSERT)
    run_sql(url, change)
    reused.give_back()
    assert reused.take() == url
    assert (fetch(url, STATE), fetch(url, INSERT)) == (before, first)


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE feedback ADD COLUMN more int",
        "ALTER TABLE feedback DISABLE TRIGGER ALL",
        "DROP TABLE feedback",
        "DROP INDEX ix_review_items_block",
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql RETURN 1",
        "GRANT SELECT ON feedback TO PUBLIC",
        "CREATE SCHEMA other",
        "COMMENT ON TABLE alembic_version IS NULL",
        "ALTER TABLE predictions ALTER COLUMN text SET STATISTICS 1",
    ],
)
def test_database_of_another_schema_is_made_anew(reused: ReusedDatabase, change: str) -> None:
    url = reused.take()
    before = fetch(url, STATE)
    run_sql(url, change)
    reused.give_back()
    assert reused.take() != url
    assert fetch(reused.take(), STATE) == before


def test_database_that_a_test_dropped_is_made_anew(
    reused: ReusedDatabase, template_database: URL
) -> None:
    url = reused.take()
    run_sql(template_database, f"DROP DATABASE {url.database} WITH (FORCE)")
    reused.give_back()
    assert fetch(reused.take(), STATE)
