"""The texts of records in CSV, JSON lines and data frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import islice

import orjson

from core.errors import MalformedRequest, invalid_field
from web.adapters.api import MAX_TEXTS
from web.json_values import MAX_VALUES, has_too_many_cells, has_too_many_lines, has_too_many_values

TEXT_COLUMN = "text"


def column_of(names: Sequence[str | int]) -> int:
    if names.count(TEXT_COLUMN) > 1:
        raise invalid_field("columns", f"more than one is named {TEXT_COLUMN!r}")
    if TEXT_COLUMN in names:
        return names.index(TEXT_COLUMN)
    if len(names) == 1:
        return 0
    raise invalid_field("columns", f"none is named {TEXT_COLUMN!r}")


def cell(row: Sequence[object], column: int) -> object:
    return row[column] if column < len(row) else None


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass  # It keeps the body: the error below must not keep it.
    raise MalformedRequest("The body is not UTF-8")


def csv_texts(body: bytes) -> list[object]:
    """The texts of the column `text`, or of the only column where no header names one."""
    if has_too_many_cells(body):
        raise invalid_field("body", f"holds more than {MAX_VALUES:,} cells")
    reader = csv.reader(io.StringIO(_text(body), newline=""), strict=True)
    try:
        # A header, and one text too many, are enough to refuse the rest.
        rows = list(islice(filter(None, reader), MAX_TEXTS + 2))
    except csv.Error as error:
        raise MalformedRequest(f"The body is not valid CSV: {error}") from None
    if rows and TEXT_COLUMN in rows[0]:
        column, rows = column_of(rows[0]), rows[1:]
        return [cell(row, column) for row in rows]
    if any(len(row) != 1 for row in rows):
        raise invalid_field("rows", f"have one column, or a header that names {TEXT_COLUMN!r}")
    return [row[0] for row in rows]


def json_lines(body: bytes) -> list[object]:
    if has_too_many_values(body):
        raise invalid_field("body", f"holds more than {MAX_VALUES:,} values")
    if has_too_many_lines(body):
        raise invalid_field("body", f"holds more than {MAX_VALUES:,} lines")
    lines = [line for line in _text(body).split("\n") if line.strip()]
    if len(lines) > MAX_TEXTS:
        raise invalid_field("lines", f"may be at most {MAX_TEXTS:,}")
    try:
        return [*map(orjson.loads, lines)]
    except orjson.JSONDecodeError as error:
        raise MalformedRequest(f"A line is not valid JSON: {error.msg}") from None
