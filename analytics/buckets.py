"""Covers a time range by rollups, of days inside and of hours and minutes towards its ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from analytics.tables import BUCKET_SECONDS
from analytics.time_range import TimeRange

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SMALLEST_FIRST = tuple(timedelta(seconds=seconds) for seconds in sorted(BUCKET_SECONDS))


class Segment(NamedTuple):
    """Part of a range: rollups of one size, or the rows themselves where `size` is None."""

    since: datetime
    until: datetime
    size: timedelta | None


def segments(span: TimeRange, largest: timedelta = SMALLEST_FIRST[-1]) -> list[Segment]:
    """Cover `span` without gap or overlap by the fewest rollups of at most `largest`.

    The rows cover the rest at either end, which is less than a minute.
    """
    sizes = [size for size in SMALLEST_FIRST if size <= largest]
    return _cover(span.since, span.until, sizes)


def _cover(since: datetime, until: datetime, sizes: list[timedelta]) -> list[Segment]:
    if since >= until:
        return []
    if not sizes:
        return [Segment(since, until, None)]
    size, smaller = sizes[-1], sizes[:-1]
    first, last = ceiling(since, size), floor(until, size)
    if first is None or first >= last:
        return _cover(since, until, smaller)
    inside = Segment(first, last, size)
    return [*_cover(since, first, smaller), inside, *_cover(last, until, smaller)]


def floor(time: datetime, size: timedelta) -> datetime:
    """The start of the bucket that `time` lies in."""
    return time - (time - EPOCH) % size


def ceiling(time: datetime, size: timedelta) -> datetime | None:
    """The first start of a bucket at or after `time`; None past the year 9999."""
    start = floor(time, size)
    try:
        return start if start == time else start + size
    except OverflowError:  # in the last bucket of the year 9999
        return None
