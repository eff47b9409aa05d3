"""Bounds how many values a body of JSON or CSV holds, before it is parsed."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Twice the texts of the largest batch that can be set.
MAX_VALUES = 20_000
# The values of a smaller body are parsed, and refused, in milliseconds.
SMALL_BYTES = 65_536
# What ends a cell of CSV, and one in quotes, also one that the body does not end. Elsewhere in a
# cell a quote is a character like others.
_CELL_ENDS = (b",", b"\n", b"\r")
_QUOTED = re.compile(rb'(?<![^,\r\n])"[^"]*+(?:""[^"]*+)*+"?')
# What begins a value, or ends one that others follow.
_MARKS = (b",", b"[", b"{")
# A string, also one that the body does not end. The quantifiers are possessive, so that no input
# takes more than one pass.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def has_too_many_values(body: bytes) -> bool:
    """Whether a body may hold more than `MAX_VALUES`; one pass, a few milliseconds a megabyte.

    Parsing and refusing some hundred thousand small values takes seconds, in which the process
    answers nobody.
    """
    # Most bodies have few marks of any kind, in texts or between them.
    if len(body) <= SMALL_BYTES or not (
        _has_more(body, _MARKS, MAX_VALUES) or _has_more(body, (b'"',), 4 * MAX_VALUES)
    ):
        return False
    # Each value may have a key. The pass ends once there are more strings.
    structure, strings = _STRING.subn(b"", body, count=2 * MAX_VALUES + 1)
    if strings > 2 * MAX_VALUES:
        return True
    return _has_more(structure, _MARKS, MAX_VALUES)


def has_too_many_cells(body: bytes) -> bool:
    """Whether a CSV body may have more than `MAX_VALUES` cells, empty rows counted too."""
    if not _has_more(body, _CELL_ENDS, MAX_VALUES):
        return False
    body = body.replace(b"\r\n", b"\n")  # ends one row
    if b'"' not in body:
        return _has_more(body, _CELL_ENDS, MAX_VALUES)
    structure, quoted = _QUOTED.subn(b"", body, count=MAX_VALUES + 1)
    return quoted > MAX_VALUES or _has_more(structure, _CELL_ENDS, MAX_VALUES)


def has_too_many_lines(body: bytes) -> bool:
    """Whether a body has more than `MAX_VALUES` lines, empty ones too."""
    return _has_more(body, (b"\n",), MAX_VALUES)


def _has_more(body: bytes, marks: Sequence[bytes], most: int) -> bool:
    """Whether a body has more than `most` of `marks`; it is read no further than tells so."""
    counted = 0
    for begin in range(0, len(body), SMALL_BYTES):
        counted += sum(map(body[begin : begin + SMALL_BYTES].count, marks))
        if counted > most:
            return True
    return False
