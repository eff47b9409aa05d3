"""UUIDv7 ids, which sort by their time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from core.uuid7 import first_id, id_range, new_id

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
moments = st.integers(0, (LAST - EPOCH) // MICROSECOND).map(lambda n: EPOCH + n * MICROSECOND)


@given(at=moments)
def test_id_is_a_uuid7_with_its_time(at: datetime) -> None:
    id_ = new_id(at)
    assert (id_.version, id_.variant) == (7, RFC_4122)
    assert id_.int >> 80 == (at - EPOCH) // timedelta(milliseconds=1)


def test_time_has_the_bits_example() -> None:
    example = UUID("017F22E2-79B0-7CC3-98C4-DC0C0C07398F")  # RFC 9562, A.6
    id_ = new_id(datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC))
    assert id_.int >> 76 == example.int >> 76


@given(first=moments, second=moments)
def test_later_time_has_a_greater_id(first: datetime, second: datetime) -> None:
    if first != second:
        assert (first < second) == (new_id(first) < new_id(second))


def test_next_microsecond_has_a_greater_id() -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    ids = [new_id(start + timedelta(microseconds=n)) for n in range(3_000)]
    assert ids == sorted(ids)


def test_ids_of_the_same_time_differ() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    assert len({new_id(at) for _ in range(1_000)}) == 1_000


@given(at=moments, since=moments, until=moments)
def test_id_range_holds_its_times_and_a_second_around_them(
    at: datetime, since: datetime, until: datetime
) -> None:
    low, high = id_range(since, until)
    inside = low <= new_id(at) < high
    second, edge = timedelta(seconds=1), timedelta(milliseconds=2)
    if since <= at < until < LAST - second:
        assert inside
    elif since - at > second + edge or at - until > second + edge:
        assert not inside


@given(at=moments, other=moments)
def test_first_id_is_the_smallest_id_of_its_millisecond(at: datetime, other: datetime) -> None:
    at = at.replace(microsecond=at.microsecond // 1_000 * 1_000)
    assert (first_id(at) <= new_id(other)) == (at <= other)


def test_id_range_may_span_all_times() -> None:
    low, high = id_range(datetime.min.replace(tzinfo=UTC), LAST)
    assert low == UUID(int=0) < new_id(datetime(2026, 3, 1, tzinfo=UTC)) < high
