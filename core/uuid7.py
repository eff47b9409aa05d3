"""Ids that tell their time: UUIDv7 (RFC 9562), which sort as their moments do.

The prediction log is partitioned by them, so an id is of the moment that its row names; those of
the first release are up to a second off. The uuid-utils package makes them of a given time as well,
but in no order within a millisecond.
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
    """A fresh UUIDv7 of `at`, 1970 or later; that of a later microsecond is greater.

    After the milliseconds come 12 bits of what is left of the time (RFC 9562, 6.2, method 3), then
    62 of `random_bits`.
    """
    milliseconds, microseconds = divmod((at - _EPOCH) // _MICROSECOND, 1_000)
    fraction = microseconds * 4_096 // 1_000
    return UUID(
        int=milliseconds << 80 | _VERSION | fraction << 64 | _VARIANT | random_bits(62),
    )


def time_of(id_: UUID) -> datetime:
    """The millisecond that a UUIDv7 was made in."""
    return _EPOCH + (id_.int >> 80) * _MILLISECOND


def id_range(since: datetime, until: datetime) -> tuple[UUID, UUID]:
    """Bounds, the second not included, of every id made within a second of [since, until)."""
    return first_id(_moved(since, -_SECOND)), first_id(_moved(until, _SECOND + _MILLISECOND))


def first_id(at: datetime) -> UUID:
    """No id of this millisecond, or a later one, is smaller."""
    return UUID(int=max((at - _EPOCH) // _MILLISECOND, 0) << 80)


def _moved(at: datetime, by: timedelta) -> datetime:
    try:
        return at + by
    except OverflowError:  # in the first second of the year 1, or the last of 9999
        return at
