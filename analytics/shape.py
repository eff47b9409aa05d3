"""Statements of analytics queries, built once for each shape of a time range.

SQLAlchemy takes 1 to 5 ms of the event loop to build a statement over a range of seven segments
and to find it in its cache. So a statement is kept for each shape that ranges have, and a query
only fills in its parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam

from analytics.buckets import SMALLEST_FIRST, Segment, segments
from analytics.scope import Scope
from core.uuid7 import id_range

DAY = SMALLEST_FIRST[-1]
# Nearly all ranges end now, and have one of ten shapes.
_SHAPES = 32

AnySelect = Select[*tuple[Any, ...]]


class Query(NamedTuple):
    statement: AnySelect
    parameters: Mapping[str, Any] = {}


class Shape(NamedTuple):
    """What a statement depends on, besides its parameters.

    `sizes` are those of the segments that cover the range (`buckets.segments`).
    """

    sizes: tuple[timedelta | None, ...]
    largest_bucket: timedelta
    has_version: bool
    randomised: bool | None


class Ends(NamedTuple):
    """Of a segment, values or parameters; rows are found by their ids, which begin with a time."""

    since: Any
    until: Any
    low: Any
    high: Any

    @classmethod
    def of(cls, number: int) -> Ends:
        return cls(*(bindparam(f"{name}_{number}") for name in cls._fields))


def per_shape(build: Callable[[Shape], AnySelect]) -> Callable[..., Query]:
    """Make a function from a scope to a query out of one from a shape to a statement.

    The function also takes `largest_bucket`, the size that no rollup may exceed, and values for
    further parameters of the statement.
    """
    built = lru_cache(maxsize=_SHAPES)(build)

    def query(scope: Scope, largest_bucket: timedelta = DAY, **parameters: Any) -> Query:
        since, until = scope.span.since, scope.span.until
        # An empty range, which no segment covers, is a query that finds nothing.
        covering = segments(scope.span, largest_bucket) or [Segment(since, until, None)]
        for number, (since, until, size) in enumerate(covering):
            parameters |= {f"since_{number}": since, f"until_{number}": until}
            if size is None:
                low, high = id_range(since, until)
                parameters |= {f"low_{number}": low, f"high_{number}": high}
        if scope.version is not None:
            parameters["version"] = scope.version
        sizes = tuple(segment.size for segment in covering)
        shape = Shape(sizes, largest_bucket, scope.version is not None, scope.randomised)
        return Query(built(shape), parameters)

    return query
