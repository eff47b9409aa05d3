"""What counts as growing without end."""

from __future__ import annotations

from scripts.soak import Taken, growth, too_much


def samples(*memory_mib: float) -> list[Taken]:
    return [Taken(each, 100, 30, 25) for each in memory_mib]


def test_what_is_taken_at_the_start_is_no_growth() -> None:
    assert too_much(growth(samples(*[500] * 5, *[900] * 15))) == []


def test_what_keeps_growing_is() -> None:
    steadily = samples(*(800 + 10 * number for number in range(40)))
    assert too_much(growth(steadily)) == ["memory, MiB"]
    leaking = [Taken(800, 100 + number, 30 + number, 25) for number in range(60)]
    assert too_much(growth(leaking)) == ["open files", "connections"]


def test_ups_and_downs_are_not() -> None:
    assert too_much(growth(samples(*(800 + 30 * (number % 2) for number in range(40))))) == []
