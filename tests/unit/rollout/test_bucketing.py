"""How /predict/ab deals subjects out."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from core.types import Version
from rollout.bucketing import deal, subject_key

# Five standard deviations of a binomial count: fails by chance less than once in a million.
SIGMAS = 5


def assign_version(subject: str | None, *, v2_percent: float, salt: str) -> Version:
    return deal(subject_key(subject, salt), v2_percent)


def binomial_bounds(n: int, p: float) -> tuple[float, float]:
    half = SIGMAS * math.sqrt(n * p * (1 - p))
    return n * p - half, n * p + half


SUBJECTS = [f"user-{number}" for number in range(5_000)]


def share(percent: float, salt: str = "s") -> int:
    return sum(
        assign_version(subject, v2_percent=percent, salt=salt) == "v2" for subject in SUBJECTS
    )


@given(subject=st.text(min_size=1), percent=st.floats(0, 100), salt=st.text())
def test_a_subject_stays_where_it_was_dealt(subject: str, percent: float, salt: str) -> None:
    dealt = {assign_version(subject, v2_percent=percent, salt=salt) for _ in range(3)}
    assert len(dealt) == 1


def test_shares_lie_within_the_binomial_bounds() -> None:
    for percent in (5, 25, 50, 90):
        low, high = binomial_bounds(len(SUBJECTS), percent / 100)
        assert low <= share(percent) <= high


def test_a_fine_split_is_kept_fine() -> None:
    subjects = [f"user-{number}" for number in range(40_000)]
    v2 = sum(assign_version(subject, v2_percent=0.25, salt="s") == "v2" for subject in subjects)
    low, high = binomial_bounds(len(subjects), 0.0025)
    assert low <= v2 <= high


def test_the_ends_are_exact() -> None:
    assert share(0) == 0
    assert share(100) == len(SUBJECTS)


def test_a_changed_split_moves_only_whom_it_must() -> None:
    for subject in SUBJECTS:
        at_20 = assign_version(subject, v2_percent=20, salt="s")
        at_50 = assign_version(subject, v2_percent=50, salt="s")
        # More for v2 takes nobody away from it.
        assert (at_20, at_50) != ("v2", "v1")


def test_another_salt_deals_anew() -> None:
    moved = sum(
        assign_version(subject, v2_percent=50, salt="a")
        != assign_version(subject, v2_percent=50, salt="b")
        for subject in SUBJECTS
    )
    low, high = binomial_bounds(len(SUBJECTS), 0.5)
    assert low <= moved <= high


def test_without_a_subject_both_versions_are_drawn() -> None:
    drawn = [assign_version(None, v2_percent=50, salt="s") for _ in range(2_000)]
    low, high = binomial_bounds(len(drawn), 0.5)
    assert low <= drawn.count("v2") <= high
    assert {assign_version(None, v2_percent=0, salt="s") for _ in range(200)} == {"v1"}
    assert {assign_version(None, v2_percent=100, salt="s") for _ in range(200)} == {"v2"}
