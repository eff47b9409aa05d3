"""Callers that take little are told from those that take much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.web.apart import apart
from web.caller_use import CallerUse

MUCH = 100.0


def used(use: CallerUse, caller: str, per_second: float, amount: float, until: float) -> None:
    for number in range(int(until * per_second)):
        use.add(number / per_second, caller, amount)


def test_who_takes_much_at_a_time_is_not_light_and_who_takes_little_often_is() -> None:
    use = CallerUse()
    used(use, apart("heavy"), 8, MUCH, 4.0)
    used(use, apart("honest"), 100, 1.0, 4.0)
    assert use.is_light(4.0, apart("honest"))
    assert use.is_light(4.0, apart("new"))
    assert not use.is_light(4.0, apart("heavy"))


@pytest.mark.parametrize("callers", [1, 2, 20])
def test_of_callers_that_take_alike_none_is_light(callers: int) -> None:
    use = CallerUse()
    for number in range(callers):
        used(use, f"caller {number}", 30, 1.0, 4.0)
    assert not any(use.is_light(4.0, f"caller {number}") for number in range(callers))


def test_nobody_is_light_of_whom_nothing_is_known() -> None:
    assert not CallerUse().is_light(1_000.0, "anybody")


def test_what_was_taken_long_ago_counts_for_nothing() -> None:
    use = CallerUse()
    used(use, apart("heavy"), 8, MUCH, 4.0)
    used(use, apart("other"), 8, 1.0, 4.0)
    assert use.is_light(4.0, apart("other"))
    for _ in range(3):
        use.add(99.0, apart("other"))
    assert not use.is_light(99.0, apart("other"))
    assert use.is_light(99.1, apart("heavy"))


@given(st.dictionaries(st.text(), st.tuples(st.integers(1, 50), st.floats(1, 300)), max_size=9))
def test_light_callers_together_take_less_than_half(loads: dict[str, tuple[int, float]]) -> None:
    use = CallerUse()
    for caller, (times, amount) in loads.items():
        for _ in range(times):
            use.add(10.0, caller, amount)
    taken = {name: times * amount for name, (times, amount) in loads.items()}
    light = [taken[caller] for caller in loads if use.is_light(10.0, caller)]
    assert sum(light) <= sum(taken.values()) / 2


def test_all_that_is_taken_a_second_is_told() -> None:
    use = CallerUse()
    assert use.per_second(5.0) == 0
    for number in range(30):
        used_at = number / 1.0
        for caller in ("ann", "bob"):
            use.add(used_at, caller, 10.0)
    assert use.per_second(29.5) == pytest.approx(20, rel=0.1)
    assert use.per_second(60.0) < 1
