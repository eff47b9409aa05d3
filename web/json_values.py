"""Bounds how many values a JSON body holds, before it is parsed."""

from __future__ import annotations

import re

# Twice the texts of the largest batch that can be set.
MAX_VALUES = 20_000
# The values of a smaller body are parsed, and refused, in milliseconds.
SMALL_BYTES = 65_536
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
    marks = sum(map(body.count, _MARKS))
    if len(body) <= SMALL_BYTES or (marks <= MAX_VALUES and body.count(b'"') <= 4 * MAX_VALUES):
        return False
    # Each value may have a key. The pass ends once there are more strings.
    structure, strings = _STRING.subn(b"", body, count=2 * MAX_VALUES + 1)
    if strings > 2 * MAX_VALUES:
        return True
    return sum(map(structure.count, _MARKS)) > MAX_VALUES
