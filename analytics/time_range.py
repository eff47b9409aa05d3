"""The `since` and `until` of an analytics request."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from core.errors import invalid_field

EARLIEST = datetime.min.replace(tzinfo=UTC)
DEFAULT_SPAN = timedelta(hours=24)
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
# A "+" that is not percent-encoded in a query string arrives as a space.
_LOST_PLUS = re.compile(r" ([0-9]{2}:?[0-9]{2})$")
_RELATIVE = re.compile(r"([1-9][0-9]{0,5})([mhd])")


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From `since`, which belongs to it, to `until`, which does not; both aware, in UTC."""

    since: datetime
    until: datetime


def parse_range(since: str | None, until: str | None, now: datetime) -> TimeRange:
    """The range from `since` to `until`; the last 24 hours by default.

    Each is ISO 8601 with an offset, or relative to `now` as in `30m`, `24h`, `7d`.

    Raises:
        InvalidRequest: a time has neither form, or `since` is not before `until`.
    """
    end = now if until is None else _parse_time("until", until, now)
    if since is not None:
        start = _parse_time("since", since, now)
    elif end > EARLIEST + DEFAULT_SPAN:
        start = end - DEFAULT_SPAN
    else:
        raise invalid_field("until", "lies too far back")
    if start >= end:
        raise invalid_field("since", "must be before until")
    return TimeRange(start, end)


def parse_ends(
    since: str | None, until: str | None, now: datetime
) -> tuple[datetime | None, datetime]:
    """Both ends of a range that begins with its data, unless `since` is given.

    Raises:
        InvalidRequest: as `parse_range`.
    """
    end = now if until is None else _parse_time("until", until, now)
    if end <= EARLIEST:
        raise invalid_field("until", "lies too far back")
    start = None if since is None else _parse_time("since", since, now)
    if start is not None and start >= end:
        raise invalid_field("since", "must be before until")
    return start, end


def reference_range(
    since: str | None, until: str | None, current: TimeRange, now: datetime
) -> TimeRange:
    """The reference of `current`: by default, the range of the same length right before it.

    Raises:
        InvalidRequest: as `parse_range`; or only one end is given, or nothing lies before.
    """
    if (since is None) != (until is None):
        raise invalid_field("reference_since", "needs reference_until, and the other way round")
    if since is not None and until is not None:
        start = _parse_time("reference_since", since, now)
        end = _parse_time("reference_until", until, now)
    else:
        length = current.until - current.since
        if current.since - EARLIEST < length:
            raise invalid_field("since", "lies too far back for a reference before it")
        start, end = current.since - length, current.since
    if start >= end:
        raise invalid_field("reference_since", "must be before reference_until")
    return TimeRange(start, end)


def _parse_time(field: str, value: str, now: datetime) -> datetime:
    relative = _RELATIVE.fullmatch(value)
    try:
        if relative:
            return now - timedelta(**{_UNITS[relative[2]]: int(relative[1])})
        time = datetime.fromisoformat(_LOST_PLUS.sub(r"+\1", value))
        if time.tzinfo is None:
            raise invalid_field(field, "needs an offset, such as 2026-01-31T12:00:00Z")
        return time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise invalid_field(
            field, "must be ISO 8601 with an offset (2026-01-31T12:00:00Z) or relative (24h, 7d)"
        ) from error
