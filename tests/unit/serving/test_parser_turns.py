"""Bytes that are dear to parse get a share of the event loop's time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.parser_turns import (
    BURST_SECONDS,
    MAX_WAIT_SECONDS,
    SECONDS_PER_PART,
    SHARE,
    ParserTurns,
)

BURST_PARTS = round(BURST_SECONDS * SHARE / SECONDS_PER_PART)


def test_burst_waits_for_nothing() -> None:
    turns = ParserTurns()
    assert turns.wait_seconds(100.0, parts=BURST_PARTS) == pytest.approx(0)
    assert turns.wait_seconds(100.0, parts=1_000) == pytest.approx(1_000 * SECONDS_PER_PART / SHARE)


def test_connections_wait_for_one_another() -> None:
    turns = ParserTurns()
    turns.wait_seconds(100.0, parts=BURST_PARTS)
    waits = [turns.wait_seconds(100.0, parts=700) for _ in range(10)]
    assert waits == pytest.approx([number * 0.007 for number in range(1, 11)])
    assert turns.wait_seconds(200.0, parts=BURST_PARTS) == pytest.approx(0)


def test_wait_after_a_flood_has_a_bound() -> None:
    turns = ParserTurns()
    for _ in range(100_000):
        assert turns.wait_seconds(100.0, parts=700) <= MAX_WAIT_SECONDS + 1e-9
    assert turns.wait_seconds(100.0 + MAX_WAIT_SECONDS, parts=1) < 0.01


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(65, 4_096)), min_size=1, max_size=80))
def test_parts_of_all_connections_take_no_more_than_the_share(
    pieces: list[tuple[int, int]],
) -> None:
    """Connections that go on as soon as they may, each with the next piece of its list."""
    turns, now, parsed = ParserTurns(), 100.0, 0
    ready = dict.fromkeys(range(1, 5), now)
    for connection, parts in pieces:
        now = max(now, ready[connection])
        parsed += parts
        ready[connection] = now + turns.wait_seconds(now, parts=parts)
    # The last piece of each has not been waited for.
    allowed = BURST_SECONDS + (now - 100.0)
    assert parsed * SECONDS_PER_PART / SHARE <= allowed + 4 * 4_096 * SECONDS_PER_PART / SHARE
