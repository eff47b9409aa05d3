"""UUIDv7 ids (RFC 9562), which contain their time and sort by it.

The prediction log is partitioned by id, so an id has the time of its row; ids of the first release
are up to a second off. The uuid-utils package also makes ids of a given time, but it does not order
the ids of one millisecond.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from secrets import randbits
from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MILLISECOND = timedelta(milliseconds=1)
_SECOND = timedelta(seconds=1)
_VERSION, _VARIANT = 7 << 76, 2 << 62


def new_id(at: datetime, random_bits: Callable[[int], int] = randbits) -> UUID:
    """Make a UUIDv7 of `at`, 1970 or later; the id of a later microsecond is greater.

    After the milliseconds come 12 bits of the rest of the time (RFC 9562, 6.2, method 3), then 62
    bits of `random_bits`.
    """
    milliseconds, microseconds = divmod((at - _EPOCH) // _MICROSECOND, 1_000)
    fraction = microseconds * 4_096 // 1_000
    return UUID(int=milliseconds << 80 | _VERSION | fraction << 64 | _VARIANT | random_bits(62))


def time_of(id_: UUID) -> datetime:
    """The time of a UUIDv7, to the millisecond."""
    return _EPOCH + (id_.int >> 80) * _MILLISECOND


def id_range(since: datetime, until: datetime) -> tuple[UUID, UUID]:
    """The half-open range of the ids made in [since, until), a second wider on each side."""
    return first_id(_moved(since, -_SECOND)), first_id(_moved(until, _SECOND + _MILLISECOND))


def first_id(at: datetime) -> UUID:
    """The smallest id of a millisecond."""
    return UUID(int=max((at - _EPOCH) // _MILLISECOND, 0) << 80)


def _moved(at: datetime, by: timedelta) -> datetime:
    try:
        return at + by
    except OverflowError:  # in the first second of the year 1, or the last of 9999
        return at
