"""What counts as growing without end."""

from __future__ import annotations

from loadtest.bench.soak import Sample, growth, too_much


def sample(memory_mib: float, open_files: int = 100, connections: int = 30) -> Sample:
    return {
        "memory, MiB": memory_mib,
        "open files": open_files,
        "connections": connections,
        "threads": 25,
        "memory of service, MiB": memory_mib,
    }


def samples(*memory_mib: float) -> list[Sample]:
    return [sample(each) for each in memory_mib]


def test_use_at_the_start_is_no_growth() -> None:
    assert too_much(growth(samples(*[500] * 5, *[900] * 15))) == []


def test_what_keeps_growing_is() -> None:
    steadily = samples(*(800 + 10 * number for number in range(40)))
    assert too_much(growth(steadily)) == ["memory, MiB"]
    leaking = [sample(800, 100 + number, 30 + number) for number in range(60)]
    assert too_much(growth(leaking)) == ["open files", "connections"]


def test_ups_and_downs_are_not() -> None:
    assert too_much(growth(samples(*(800 + 30 * (number % 2) for number in range(40))))) == []


def test_a_process_that_came_late_is_told_by_its_memory() -> None:
    late: Sample = {**sample(800), "memory of log_shipper, MiB": 90}
    assert growth([sample(800)] * 10 + [late] * 10)["memory of log_shipper, MiB"] == (
        0,
        90,
    )
