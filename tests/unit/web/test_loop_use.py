"""Callers that take little of the event loop are told from those that keep it busy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.loop_use import LoopUse

BODY_BYTES = 4_000_000


def used(use: LoopUse, caller: str, per_second: float, body_bytes: int, until: float) -> None:
    for number in range(int(until * per_second)):
        use.add(number / per_second, caller, body_bytes)


def test_who_sends_large_bodies_is_not_light_and_who_sends_many_small_ones_is() -> None:
    use = LoopUse()
    used(use, "heavy", 8, BODY_BYTES, 4.0)
    used(use, "honest", 100, 200, 4.0)
    assert use.is_light(4.0, "honest")
    assert use.is_light(4.0, "new")
    assert not use.is_light(4.0, "heavy")


@pytest.mark.parametrize("callers", [1, 2, 20])
def test_of_callers_that_take_alike_none_is_light(callers: int) -> None:
    use = LoopUse()
    for number in range(callers):
        used(use, f"caller {number}", 30, 1_000, 4.0)
    assert not any(use.is_light(4.0, f"caller {number}") for number in range(callers))


def test_nobody_is_light_of_whom_nothing_is_known() -> None:
    assert not LoopUse().is_light(1_000.0, "anybody")


def test_what_was_taken_long_ago_counts_for_nothing() -> None:
    use = LoopUse()
    used(use, "heavy", 8, BODY_BYTES, 4.0)
    used(use, "other", 8, 0, 4.0)
    assert use.is_light(4.0, "other")
    for _ in range(3):
        use.add(99.0, "other", 0)
    assert not use.is_light(99.0, "other")
    assert use.is_light(99.1, "heavy")


@given(st.dictionaries(st.text(), st.tuples(st.integers(1, 50), st.integers(0, 10**7)), max_size=9))
def test_light_callers_together_take_less_than_half(loads: dict[str, tuple[int, int]]) -> None:
    use = LoopUse()
    for caller, (times, body_bytes) in loads.items():
        for _ in range(times):
            use.add(10.0, caller, body_bytes)
    taken = {name: times * (1 + size / 32_768) for name, (times, size) in loads.items()}
    light = [taken[caller] for caller in loads if use.is_light(10.0, caller)]
    assert sum(light) <= sum(taken.values()) / 2
