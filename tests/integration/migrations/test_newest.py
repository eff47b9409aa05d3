"""A start asks without Alembic whether a private database has the newest schema."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sqlalchemy import URL

from core.paths import ROOT
from migrations.compatibility import scripts
from migrations.newest import is_newest, newest_revision
from tests.database import run_sql


def test_newest_revision_is_alembics_head() -> None:
    assert newest_revision() == scripts().get_current_head()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("SELECT 1", True),
        ("UPDATE alembic_version SET version_num = '0001'", False),
        ("UPDATE alembic_version SET version_num = '9999'", False),
        ("DROP TABLE alembic_version", False),
    ],
    ids=["newest", "older", "newer", "none"],
)
def test_schema_counts_as_newest_at_alembics_head_alone(
    database_url: URL, change: str, expected: bool
) -> None:
    run_sql(database_url, change)
    assert is_newest(on_its_socket(database_url)) is expected


def test_database_that_does_not_answer_is_left_to_alembic() -> None:
    assert not is_newest("postgresql+asyncpg://nobody@/none?host=%2Fnowhere")


def test_question_needs_neither_alembic_nor_an_engine() -> None:
    program = "import sys, migrations.newest as m; m.newest_revision(); print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True).split()
    assert not {"alembic", "sqlalchemy"} & {*loaded}


def on_its_socket(url: URL) -> str:
    """The URL in the form of a private database's."""
    private = URL.create(
        url.drivername, url.username, database=url.database, query={"host": url.query["host"]}
    )
    return private.render_as_string(hide_password=False)
