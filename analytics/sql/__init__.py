"""Statements that are written out in SQL, each in a file of its own; read once, at import."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import DDL, TextClause, text

_FOLDER = Path(__file__).parent


def load(name: str) -> TextClause:
    """The statement of `name`.sql; `:parameter` marks its bind parameters."""
    return text((_FOLDER / f"{name}.sql").read_text(encoding="utf-8"))


def ddl(statement: str, **names: str) -> DDL:
    """A DDL statement, in which `%(name)s` stands for a name: DDL takes no bind parameters."""
    return DDL(statement, context=names)  # type: ignore[no-untyped-call]
