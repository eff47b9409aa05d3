"""Ids that sort as their moments do."""

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
def test_an_id_is_a_uuid7_of_its_moment(at: datetime) -> None:
    made = new_id(at)
    assert (made.version, made.variant) == (7, RFC_4122)
    assert made.int >> 80 == (at - EPOCH) // timedelta(milliseconds=1)


def test_the_time_is_where_the_standard_has_it() -> None:
    of_the_standard = UUID("017F22E2-79B0-7CC3-98C4-DC0C0C07398F")  # RFC 9562, A.6
    made = new_id(datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC))
    assert made.int >> 76 == of_the_standard.int >> 76


@given(one=moments, other=moments)
def test_later_moments_have_greater_ids(one: datetime, other: datetime) -> None:
    if one != other:
        assert (one < other) == (new_id(one) < new_id(other))


def test_the_next_microsecond_has_a_greater_id() -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    made = [new_id(start + timedelta(microseconds=n)) for n in range(3_000)]
    assert made == sorted(made)


def test_ids_of_one_moment_differ() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    assert len({new_id(at) for _ in range(1_000)}) == 1_000


@given(at=moments, since=moments, until=moments)
def test_a_range_holds_its_moments_and_a_second_around_them(
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
def test_what_is_made_from_a_millisecond_on_is_not_before_its_first_id(
    at: datetime, other: datetime
) -> None:
    at = at.replace(microsecond=at.microsecond // 1_000 * 1_000)
    assert (first_id(at) <= new_id(other)) == (at <= other)


def test_a_range_may_reach_to_the_ends_of_time() -> None:
    low, high = id_range(datetime.min.replace(tzinfo=UTC), LAST)
    assert low == UUID(int=0) < new_id(datetime(2026, 3, 1, tzinfo=UTC)) < high
