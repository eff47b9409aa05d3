"""The boundaries of every value of the OpenAPI document, in requests, some thousands."""

from __future__ import annotations

from loadtest.bench.fuzz import fuzz
from tests.serving import ServedBento


def test_boundaries_of_every_value_get_documented_answers(unlimited: ServedBento) -> None:
    assert fuzz(unlimited.url, cases=1, seed=0, phases=("coverage",)) == 0
