"""Refuses parameters of a query that a route does not have, as unknown fields, or has twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from urllib.parse import parse_qsl

from web.schemas.predictions import invalid_fields


def check_parameters(query: bytes, known: Collection[str]) -> None:
    """Check the raw `query` of a request against the names that its route knows.

    Raises:
        InvalidRequest: it has another name, such as a misspelt one, or one twice, of which a
            reader may take either.
    """
    if not query:
        return
    pairs = parse_qsl(query.decode("latin-1"), True)
    names = Counter(name for name, _ in pairs)
    if unknown := [name for name in names if name not in known]:
        says = f"known are {', '.join(sorted(known))}" if known else "this route has none"
        raise invalid_fields([((name or "=",), f"Unknown parameter; {says}") for name in unknown])
    if repeated := [name for name, times in names.items() if times > 1]:
        raise invalid_fields([((name,), "must be there once") for name in repeated])
