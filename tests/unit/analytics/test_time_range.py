"""The parameters `since` and `until`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.time_range import EARLIEST, TimeRange, parse_ends, parse_range, reference_range
from core.errors import InvalidRequest

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2026, 5, 1), timezones=OFFSETS)  # noqa: DTZ001


def test_default_range_is_the_last_day() -> None:
    assert parse_range(None, None, NOW) == TimeRange(NOW - timedelta(days=1), NOW)


@pytest.mark.parametrize(
    ("since", "span"),
    [("1m", timedelta(minutes=1)), ("36h", timedelta(hours=36)), ("7d", timedelta(days=7))],
)
def test_relative_time_counts_back_from_now(since: str, span: timedelta) -> None:
    assert parse_range(since, None, NOW).since == NOW - span


@given(TIMES)
def test_any_offset_is_converted_to_utc(time: datetime) -> None:
    assert parse_range(time.isoformat(), None, NOW).since == time
    assert parse_range(time.isoformat(), None, NOW).since.tzinfo is UTC


def test_plus_decoded_as_a_space_is_restored() -> None:
    since = parse_range("2026-05-04T09:00:00 02:00", None, NOW).since
    assert since == datetime(2026, 5, 4, 7, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("yesterday", None),
        ("", None),
        ("24", None),
        ("0h", None),
        ("24h ", None),
        ("2026-05-04", None),
        ("2026-05-04T09:00:00", None),
        ("999999d", None),
        ("1h", "1h"),
        ("1h", "2h"),
        ("2026-05-05T00:00:00Z", None),
        ("1000000d", None),
        ("-1h", None),
        ("1w", None),
        ("0001-01-01T00:00:00+14:00", None),
        (None, "9999-12-31T23:59:59-14:00"),
        (None, "0001-01-01T00:00:00Z"),
    ],
)
def test_invalid_range_is_refused(since: str | None, until: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_range(since, until, NOW)
    assert {error.field for error in caught.value.errors} <= {"since", "until"}


def test_until_without_since_ends_a_day() -> None:
    assert parse_range(None, "2d", NOW) == TimeRange(
        NOW - timedelta(days=3), NOW - timedelta(days=2)
    )


def test_ends_may_have_different_offsets() -> None:
    made = parse_range("2026-05-04T01:00:00+02:00", "2026-05-03T19:30:00-04:00", NOW)
    assert made.until - made.since == timedelta(minutes=30)


@pytest.mark.parametrize(
    ("since", "until", "field"),
    [("x", None, "since"), (None, "x", "until"), ("1h", "2h", "since"), ("x", "x", "until")],
)
def test_error_names_the_invalid_field(since: str | None, until: str | None, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_range(since, until, NOW)
    [error] = caught.value.errors
    assert error.field == field
    assert caught.value.detail == f"{field}: {error.message}"


@given(st.text(max_size=40) | st.none(), st.text(max_size=40) | st.none())
def test_any_text_gives_a_range_or_a_field_error(since: str | None, until: str | None) -> None:
    try:
        made = parse_range(since, until, NOW)
    except InvalidRequest as error:
        assert error.errors
    else:
        assert made.since < made.until


SPAN = TimeRange(NOW - timedelta(hours=3), NOW - timedelta(hours=1))


def test_default_reference_is_as_long_and_right_before() -> None:
    assert reference_range(None, None, SPAN, NOW) == TimeRange(
        NOW - timedelta(hours=5), NOW - timedelta(hours=3)
    )


def test_reference_may_be_any_range() -> None:
    assert reference_range("7d", "6d", SPAN, NOW) == TimeRange(
        NOW - timedelta(days=7), NOW - timedelta(days=6)
    )


@pytest.mark.parametrize(
    ("since", "until", "field"),
    [
        ("7d", None, "reference_since"),
        (None, "6d", "reference_since"),
        ("6d", "7d", "reference_since"),
        ("x", "6d", "reference_since"),
        ("7d", "x", "reference_until"),
    ],
)
def test_invalid_reference_is_refused(since: str | None, until: str | None, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        reference_range(since, until, SPAN, NOW)
    assert [error.field for error in caught.value.errors] == [field]


def test_range_that_ends_at_the_first_moment_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="too far back"):
        parse_ends(None, "0001-01-01T00:00:00Z", NOW)


def test_range_without_time_before_it_has_no_reference() -> None:
    first = TimeRange(EARLIEST, EARLIEST + timedelta(days=1))
    with pytest.raises(InvalidRequest, match="too far back"):
        reference_range(None, None, first, NOW)
