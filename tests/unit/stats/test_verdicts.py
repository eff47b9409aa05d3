"""Verdicts: the better version, and the rate of wrong verdicts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stats.arms import ArmsEvidence
from stats.outcomes import ArmOutcomes, PairedOutcomes, TrafficSplit
from stats.randomised import ALPHA_SPLIT
from stats.results import Finding, LabelsNeeded
from stats.sequential import log_e_discordant, log_e_split, log_threshold
from stats.verdict import paired_verdict, randomised_verdict

COUNTS = st.integers(0, 10**9)
FEW = st.integers(0, 400)
ARMS = st.builds(lambda right, wrong: ArmOutcomes(right + wrong, right), FEW, FEW)
EVEN = TrafficSplit(5_000, 5_000, 0.5, 0.5)
NO_LABELS = ArmOutcomes(0, 0)
OTHER: dict[Finding, Finding] = {
    "v1_better": "v2_better",
    "v2_better": "v1_better",
    "no_difference_yet": "no_difference_yet",
}

Counts = NDArray[np.int64]


def test_paired_winner_is_named() -> None:
    made = paired_verdict(PairedOutcomes(900, 40, 80, 0))
    assert made.finding == "v2_better"
    assert made.sentence == (
        "v2 is better: of 1,020 labelled pairs v1 is right in 92.16%, v2 in 96.08%."
    )
    assert made.more_labels == LabelsNeeded(v1=0, v2=0)


def test_paired_loser_is_never_called_better() -> None:
    made = paired_verdict(PairedOutcomes(900, 80, 40, 0))
    assert made.finding == "v1_better"
    assert made.sentence == (
        "v1 is better: of 1,020 labelled pairs v1 is right in 96.08%, v2 in 92.16%."
    )


def test_undecided_pairs_report_the_missing_labels() -> None:
    made = paired_verdict(PairedOutcomes(900, 40, 60, 0))
    assert made.finding == "no_difference_yet"
    assert made.more_labels is not None
    more = made.more_labels.v1
    assert made.more_labels == LabelsNeeded(v1=more, v2=more)
    assert made.sentence == (
        "No difference is certain yet: of 1,000 labelled pairs v1 is right in 94.00%, v2 in "
        f"96.00%. If these were the true accuracies, about {more:,} more labelled pairs would "
        "settle it."
    )
    limit, scale = log_threshold(0.05), 1 + more / 1_000
    assert log_e_discordant(40 * scale, 60 * scale) >= limit
    assert log_e_discordant(40 * (scale - 0.001), 60 * (scale - 0.001)) < limit


@pytest.mark.parametrize(
    "outcomes",
    [
        PairedOutcomes(900, 50, 50, 0),
        PairedOutcomes(900, 0, 0, 100),
        PairedOutcomes(10**9, 10**8, 10**8 + 1, 0),
    ],
)
def test_more_labels_is_none_where_no_number_would_decide(outcomes: PairedOutcomes) -> None:
    made = paired_verdict(outcomes)
    assert (made.finding, made.more_labels) == ("no_difference_yet", None)
    assert "settle" not in made.sentence


def test_one_pair_needs_seven_more_like_it() -> None:
    assert paired_verdict(PairedOutcomes(0, 0, 1, 0)).more_labels == LabelsNeeded(v1=7, v2=7)
    assert paired_verdict(PairedOutcomes(0, 0, 8, 0)).finding == "v2_better"
    assert paired_verdict(PairedOutcomes(0, 0, 7, 0)).finding == "no_difference_yet"


def test_verdict_without_labels_is_no_difference_yet() -> None:
    for made in (
        paired_verdict(PairedOutcomes(0, 0, 0, 0)),
        randomised_verdict(NO_LABELS, NO_LABELS, TrafficSplit(0, 0, 0.5)),
        randomised_verdict(ArmOutcomes(10**9, 10**9), NO_LABELS, EVEN),
    ):
        assert (made.finding, made.more_labels) == ("no_difference_yet", None)
        assert made.sentence.startswith("There are too few true labels")


def test_randomised_winner_is_named() -> None:
    made = randomised_verdict(ArmOutcomes(9_000, 8_100), ArmOutcomes(9_100, 8_463), EVEN)
    assert made.finding == "v2_better"
    assert made.sentence == (
        "v2 is better: v1 is right in 90.00% of 9,000 labelled predictions, v2 in 93.00% of 9,100."
    )
    assert made.more_labels == LabelsNeeded(v1=0, v2=0)


def test_undecided_arms_report_the_missing_labels_of_each() -> None:
    made = randomised_verdict(
        ArmOutcomes(900, 810), ArmOutcomes(100, 93), TrafficSplit(9_000, 1_000, 0.1, 0.1)
    )
    assert made.finding == "no_difference_yet"
    assert made.more_labels is not None
    v1, v2 = made.more_labels.v1, made.more_labels.v2
    assert v1 == pytest.approx(9 * v2, rel=0.001)
    assert made.sentence.endswith(
        f"about {v1:,} more labels of v1 and {v2:,} of v2 would settle it."
    )
    limit = log_threshold(0.05)
    for scale, is_enough in ((1 + v2 / 100, True), (0.999 * (1 + v2 / 100), False)):
        of_v1, of_v2 = (810 * scale, 90 * scale), (93 * scale, 7 * scale)
        assert (ArmsEvidence(of_v1, of_v2, 0.1).log_e() >= limit) is is_enough


def test_mismatch_overrides_a_winner() -> None:
    arms = ArmOutcomes(9_000, 8_100), ArmOutcomes(9_000, 8_370)
    made = randomised_verdict(*arms, TrafficSplit(9_000, 1_000, 0.2))
    assert (made.finding, made.more_labels) == ("sample_ratio_mismatch", None)
    assert made.sentence == (
        "The traffic is not split as configured: 1,000 of 10,000 subjects (10.00%) were assigned "
        "to v2 instead of 20.00%. The versions cannot be compared before the cause is found."
    )
    assert randomised_verdict(*arms, TrafficSplit(9_000, 1_000, 0.1)).finding == "v2_better"
    assert (
        randomised_verdict(NO_LABELS, NO_LABELS, TrafficSplit(45, 0, 0.5)).finding == made.finding
    )
    assert (
        randomised_verdict(NO_LABELS, NO_LABELS, TrafficSplit(44, 0, 0.5)).finding != made.finding
    )


@given(FEW, FEW, FEW, FEW)
def test_paired_verdict_follows_the_e_value_and_swaps_with_the_versions(
    both: int, lost: int, won: int, none: int
) -> None:
    made = paired_verdict(PairedOutcomes(both, lost, won, none))
    convinced = bool(log_e_discordant(lost, won) >= log_threshold(0.05))
    assert (made.finding != "no_difference_yet") == convinced
    turned = paired_verdict(PairedOutcomes(both, won, lost, none))
    assert turned.finding == OTHER[made.finding]
    assert turned.more_labels == made.more_labels
    if convinced:
        assert (made.finding == "v2_better") == (won > lost)


@settings(max_examples=50)
@given(ARMS, ARMS)
def test_randomised_verdict_follows_the_e_value_and_swaps_with_the_versions(
    v1: ArmOutcomes, v2: ArmOutcomes
) -> None:
    made, turned = randomised_verdict(v1, v2, EVEN), randomised_verdict(v2, v1, EVEN)
    log_e = reached(v1, v2)
    assert (made.finding != "no_difference_yet") == bool(log_e >= log_threshold(0.05))
    assert turned.finding == OTHER[made.finding]
    if made.finding != "no_difference_yet":
        v2_leads = v2.right * v1.labelled > v1.right * v2.labelled
        assert (made.finding == "v2_better") == v2_leads


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_any_counts_have_a_verdict(a: int, b: int, c: int, d: int) -> None:
    for made in (
        paired_verdict(PairedOutcomes(a, b, c, d)),
        randomised_verdict(ArmOutcomes(a + b, a), ArmOutcomes(c + d, c), TrafficSplit(a, d, 0.5)),
    ):
        needed = made.more_labels
        assert (
            needed is None or 0 <= min(needed.v1, needed.v2) <= max(needed.v1, needed.v2) <= 10**9
        )


def test_stricter_alpha_needs_more_labels() -> None:
    pairs = [paired_verdict(PairedOutcomes(900, 40, 60, 0), alpha) for alpha in (0.1, 0.05, 0.001)]
    needed = [verdict.more_labels.v1 for verdict in pairs if verdict.more_labels]
    assert len(needed) == 3
    assert needed == sorted(needed)
    with pytest.raises(ValueError, match="alpha"):
        paired_verdict(PairedOutcomes(1, 0, 0, 0), alpha=0)
    with pytest.raises(ValueError, match="alpha"):
        randomised_verdict(NO_LABELS, NO_LABELS, EVEN, alpha_split=1)


def counted(events: NDArray[np.bool_]) -> Counts:
    return np.cumsum(events, axis=1, dtype=np.int64)


def first(true: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How many labels each run took until it was true; infinite if it never was."""
    return np.where(true.any(axis=1), true.argmax(axis=1) + 1.0, math.inf)


def test_better_version_is_found_in_nearly_all_runs_of_pairs() -> None:
    """v2 alone is right in 10 % of the texts, v1 alone in 6 %; a look at each of 6,000 pairs."""
    score = np.random.default_rng(11).random((200, 6_000), dtype=np.float32)
    won, lost = counted(score < 0.10), counted((score >= 0.10) & (score < 0.16))
    convinced = log_e_discordant(lost, won) >= log_threshold(0.05)
    right, wrong = first(convinced & (won > lost)), first(convinced & (won < lost))
    assert np.mean(np.isfinite(right)) >= 0.99
    assert np.mean(wrong < right) <= 0.01
    foretold = paired_verdict(PairedOutcomes(84, 6, 10, 0)).more_labels
    assert foretold is not None
    assert 0.7 < np.mean(right[np.isfinite(right)]) / (100 + foretold.v1) < 1


def test_better_version_is_found_in_nearly_all_runs_of_arms() -> None:
    """v1 is right in 85 %, v2 in 90 %; a look after every 100 labels, split 50/50."""
    random = np.random.default_rng(12)
    findings: list[Finding] = []
    labels = []
    for _ in range(100):
        v1 = v2 = ArmOutcomes(0, 0)
        while reached(v1, v2) < log_threshold(0.05) and v1.labelled + v2.labelled < 12_000:
            v2_labels = int(random.binomial(100, 0.5))
            v1 = more(v1, 100 - v2_labels, int(random.binomial(100 - v2_labels, 0.85)))
            v2 = more(v2, v2_labels, int(random.binomial(v2_labels, 0.9)))
        findings.append(randomised_verdict(v1, v2, EVEN).finding)
        labels.append(v1.labelled + v2.labelled)
    assert findings.count("v2_better") >= 99
    foretold = randomised_verdict(ArmOutcomes(100, 85), ArmOutcomes(100, 90), EVEN).more_labels
    assert foretold is not None
    assert 0.7 < np.mean(labels) / (200 + foretold.v1 + foretold.v2) < 1.1


def reached(v1: ArmOutcomes, v2: ArmOutcomes) -> float:
    return ArmsEvidence((v1.right, v1.wrong), (v2.right, v2.wrong), EVEN.label_share).log_e()


def more(arm: ArmOutcomes, labelled: int, right: int) -> ArmOutcomes:
    return ArmOutcomes(arm.labelled + labelled, arm.right + right)


def test_wrong_split_is_found_in_nearly_all_runs() -> None:
    """45 % instead of 50 %; a look at each of 6,000 subjects."""
    to_v2 = np.random.default_rng(13).random((200, 6_000), dtype=np.float32) < 0.45
    second = counted(to_v2)
    subjects = np.arange(1, 6_001)
    found = first(log_e_split(subjects - second, second, 0.5) >= log_threshold(ALPHA_SPLIT))
    assert np.mean(np.isfinite(found)) >= 0.99
