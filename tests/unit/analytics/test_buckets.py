"""Rollups and, at the ends, rows cover a range without gap or overlap."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.buckets import SMALLEST_FIRST, Segment, segments
from analytics.time_range import TimeRange
from analytics.timeseries import BUCKETS, MAX_BUCKETS, BucketName, choose_bucket
from core.errors import InvalidRequest

START = datetime(2026, 3, 1, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE, HOUR, DAY = SMALLEST_FIRST
ANY_TIME = st.datetimes(timezones=st.just(UTC))


@given(ANY_TIME, ANY_TIME, st.sampled_from(SMALLEST_FIRST))
def test_segments_cover_any_range_once(
    first: datetime, second: datetime, largest: timedelta
) -> None:
    since, until = sorted((first, second))
    covering = segments(TimeRange(since, until), largest)
    ends = [since, *(segment.until for segment in covering)]
    assert [segment.since for segment in covering] == ends[:-1]
    assert ends[-1] == until
    for segment in covering:
        assert segment.since < segment.until
        if segment.size is None:
            assert segment.until - segment.since < MINUTE
        else:
            assert segment.size <= largest
            assert not (segment.since - EPOCH) % segment.size
            assert not (segment.until - EPOCH) % segment.size
    # At most two segments of each size, and one of the largest.
    assert len(covering) <= 2 * len(SMALLEST_FIRST) + 1
    # Small buckets never cover what a larger one would.
    for smaller, larger in ((MINUTE, HOUR), (HOUR, DAY)):
        if larger <= largest:
            assert all(
                segment.until - segment.since < larger
                for segment in covering
                if segment.size == smaller
            )


def test_range_is_covered_by_days_inside_and_rows_at_the_ends() -> None:
    second = timedelta(seconds=1)
    span = TimeRange(START - HOUR - MINUTE - second, START + 2 * DAY + second)
    assert segments(span) == [
        Segment(span.since, START - HOUR - MINUTE, None),
        Segment(START - HOUR - MINUTE, START - HOUR, MINUTE),
        Segment(START - HOUR, START, HOUR),
        Segment(START, START + 2 * DAY, DAY),
        Segment(START + 2 * DAY, span.until, None),
    ]


@pytest.mark.parametrize(
    ("length", "bucket"),
    [(MINUTE, "minute"), (3 * HOUR, "minute"), (4 * HOUR, "hour"), (7 * DAY, "hour"),
     (8 * DAY, "day"), (3_000 * DAY, "day")],
)  # fmt: skip
def test_default_bucket_gives_at_most_180_points(length: timedelta, bucket: BucketName) -> None:
    assert choose_bucket(TimeRange(START, START + length), None) == bucket


@pytest.mark.parametrize("bucket", BUCKETS)
def test_bucket_with_too_many_points_is_refused(bucket: BucketName) -> None:
    most = MAX_BUCKETS * BUCKETS[bucket]
    assert choose_bucket(TimeRange(START, START + most), bucket) == bucket
    with pytest.raises(InvalidRequest, match="more than 1,500 points"):
        choose_bucket(TimeRange(START, START + most + MINUTE), bucket)
