"""The assignment of subjects of /predict/ab to the versions."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from core.keyed_hash import subject_digest
from core.types import Version
from rollout.bucketing import assign, new_subject_key

# Five standard deviations of a binomial count: fails by chance less than once in a million.
SIGMAS = 5


def assign_version(subject: str | None, *, v2_percent: float, salt: str) -> Version:
    key = new_subject_key() if subject is None else subject_digest(subject, salt)
    return assign(key, v2_percent)


def binomial_bounds(n: int, p: float) -> tuple[float, float]:
    half = SIGMAS * math.sqrt(n * p * (1 - p))
    return n * p - half, n * p + half


SUBJECTS = [f"user-{number}" for number in range(5_000)]


def share(percent: float, salt: str = "s") -> int:
    return sum(
        assign_version(subject, v2_percent=percent, salt=salt) == "v2" for subject in SUBJECTS
    )


@given(subject=st.text(min_size=1), percent=st.floats(0, 100), salt=st.text())
def test_subject_always_gets_the_same_version(subject: str, percent: float, salt: str) -> None:
    versions = {assign_version(subject, v2_percent=percent, salt=salt) for _ in range(3)}
    assert len(versions) == 1


def test_share_of_v2_lies_within_the_binomial_bounds() -> None:
    for percent in (5, 25, 50, 90):
        low, high = binomial_bounds(len(SUBJECTS), percent / 100)
        assert low <= share(percent) <= high


def test_split_of_a_quarter_percent_lies_within_the_binomial_bounds() -> None:
    subjects = [f"user-{number}" for number in range(40_000)]
    v2 = sum(assign_version(subject, v2_percent=0.25, salt="s") == "v2" for subject in subjects)
    low, high = binomial_bounds(len(subjects), 0.0025)
    assert low <= v2 <= high


def test_split_of_0_or_100_percent_is_exact() -> None:
    assert share(0) == 0
    assert share(100) == len(SUBJECTS)


def test_larger_share_of_v2_moves_no_subject_to_v1() -> None:
    for subject in SUBJECTS:
        at_20 = assign_version(subject, v2_percent=20, salt="s")
        at_50 = assign_version(subject, v2_percent=50, salt="s")
        assert (at_20, at_50) != ("v2", "v1")


def test_another_salt_assigns_every_subject_anew() -> None:
    moved = sum(
        assign_version(subject, v2_percent=50, salt="a")
        != assign_version(subject, v2_percent=50, salt="b")
        for subject in SUBJECTS
    )
    low, high = binomial_bounds(len(SUBJECTS), 0.5)
    assert low <= moved <= high


def test_requests_without_a_subject_get_both_versions() -> None:
    drawn = [assign_version(None, v2_percent=50, salt="s") for _ in range(2_000)]
    low, high = binomial_bounds(len(drawn), 0.5)
    assert low <= drawn.count("v2") <= high
    assert {assign_version(None, v2_percent=0, salt="s") for _ in range(200)} == {"v1"}
    assert {assign_version(None, v2_percent=100, salt="s") for _ in range(200)} == {"v2"}
