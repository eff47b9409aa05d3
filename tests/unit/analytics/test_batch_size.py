"""The size of a batch finds what the other side takes in time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from analytics.log.batch_size import FAST_SECONDS, PATIENCE, BatchSize

MOST, FIRST = 20_000, 100


def send(size: BatchSize, can_take: int, batches: int, waiting: int = 10**6) -> tuple[int, int]:
    """How many predictions were taken, and how many batches were not."""
    taken = late = 0
    for _ in range(batches):
        predictions = min(size.predictions, waiting)
        if predictions > can_take:
            size.not_in_time(predictions)
            late += 1
        else:
            size.taken(predictions, 0.1)
            taken += predictions
    return taken, late


@given(st.lists(st.integers(1, 2 * MOST), min_size=1, max_size=5))
def test_whatever_can_be_taken_is_found_soon_and_seldom_missed(speeds: list[int]) -> None:
    size = BatchSize(MOST, FIRST)
    for can_take in speeds:
        send(size, can_take, 16 + PATIENCE)
        assert size.predictions <= 2 * can_take
        taken, late = send(size, can_take, 210)
        assert late <= 210 / PATIENCE
        assert taken >= 190 * max(1, min(can_take, MOST) // 4)
        assert size.predictions <= MOST


def test_slow_or_small_batches_say_nothing_for_larger_ones() -> None:
    size = BatchSize(MOST, FIRST)
    for _ in range(100):
        size.taken(FIRST, FAST_SECONDS)
        size.taken(FIRST - 1, 0.0)
    assert size.predictions == FIRST
