"""Evaluates an arithmetic SQL expression as PostgreSQL does, without a database."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

_CASTS = re.compile(r"::(double precision|smallint)\b")


def evaluate(expression: str, **columns: float | None) -> float:
    """What `expression` gives for a row. A smallint out of range raises, as in PostgreSQL."""
    functions = {
        "abs": abs,
        "ceil": math.ceil,
        "coalesce": lambda value, otherwise: otherwise if value is None else value,
        "floor": lambda value: math.floor(value) if math.isfinite(value) else value,
        "greatest": lambda *values: _extreme(values, largest=True),
        "least": lambda *values: _extreme(values, largest=False),
        "ln": math.log,
    }
    scope: dict[str, Any] = {"__builtins__": {}, **functions, **columns}
    value: float = eval(_CASTS.sub("", expression), scope)  # noqa: S307
    if expression.endswith("::smallint"):
        assert np.iinfo(np.int16).min <= value <= np.iinfo(np.int16).max
        assert value == int(value)
    return value


def _extreme(values: tuple[float | None, ...], *, largest: bool) -> float:
    """NULL is passed over, and NaN is greater than any number."""
    known = [value for value in values if value is not None]
    ordered = sorted(known, key=lambda value: (math.isnan(value), value))
    return ordered[-1 if largest else 0]
