"""Callers that share no counter."""

from __future__ import annotations

import itertools
from functools import cache

from web.caller_use import bucket_of

_owners: dict[int, str] = {}


@cache
def apart(caller: str) -> str:
    """A name for one of few callers; two of any names share a counter in 1 of 256 runs."""
    names = (f"{caller} {number}" for number in itertools.count())
    return next(name for name in names if _owners.setdefault(bucket_of(name), caller) == caller)
