"""Rows of a reply as CSV, for `?format=csv`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from fastapi import Response
from pydantic_core import to_jsonable_python

Format = Literal["json", "csv"]
CONTENT_TYPE = "text/csv; charset=utf-8"
# What a spreadsheet would run, by OWASP's list; a number is none. The dashboard's csv_rows.js has
# the same rule.
_FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?([eE][+-]?[0-9]+)?")
# Tells the OpenAPI document that an endpoint with rows also replies with CSV.
CSV_REPLY: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/csv": {"schema": {"type": "string"}}}}
}


def csv_response(
    name: str, rows: Sequence[Any], headers: Mapping[str, str] | None = None
) -> Response:
    """A header and a line for each row, a model or a mapping (RFC 4180); of none, an empty body.

    A nested field is named with a dot, such as `sentiments.positive`. Null is an empty cell. An
    apostrophe precedes a text that begins like a formula (docs/decisions/0068). Every text is in
    quotes: a spreadsheet that separates cells by semicolons would run the rest of `x;=1+1`.
    """
    flat = [dict(_flat(row)) for row in to_jsonable_python(rows)]
    text = io.StringIO()
    if flat:
        writer = csv.DictWriter(text, flat[0], quoting=csv.QUOTE_NONNUMERIC)
        writer.writeheader()
        writer.writerows(flat)
    disposition = {"content-disposition": f'attachment; filename="{name}.csv"'}
    return Response(text.getvalue(), 200, disposition | dict(headers or {}), CONTENT_TYPE)


def _flat(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, _cell(value) if isinstance(value, str) else value


def _cell(text: str) -> str:
    is_formula = _FORMULA.match(text) and not _NUMBER.fullmatch(text)
    return f"'{text}" if is_formula else text
