"""How often verdicts of A/B tests are false, and how many labels they need.

No version is better in a test of false verdicts, and every label is followed by a look. The texts
of one subject are alike: a pair in which only one version is right favours v2 with a probability
of the subject's own. Its distribution over the subjects gives the intra-class correlation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stats.arms import ArmsEvidence, log_e_at_most
from stats.sequential import log_e_discordant, log_e_split, log_threshold
from stats.verdict import ALPHA
from stats.wilson import wilson_interval

# Texts of each subject, and pairs in which only one version is right.
TEXTS = 20
DISCORDANT = 0.16
CORRELATION = 0.1
# The share of subjects with which v1 is much better, where v2 is better with all others.
FEW = 0.3
UNEVEN = -1.0
LIMIT = log_threshold(ALPHA)

Counts = NDArray[np.int64]
# Simulates a test; returns the number of labels until its verdict, infinite without one.
Run = Callable[[np.random.Generator], float]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A simulated test, and the share of its runs that may have a verdict."""

    name: str
    run: Run
    most_verdicts: float | None = None

    @property
    def is_promised(self) -> bool:
        return self.most_verdicts is not None


@dataclass(slots=True)
class Result:
    """The labels until a verdict, of each run; infinite if there was none."""

    scenario: Scenario
    labels: list[float] = field(default_factory=list)

    @property
    def runs(self) -> int:
        return len(self.labels)

    @property
    def verdicts(self) -> int:
        return int(np.isfinite(self.labels).sum())

    @property
    def interval(self) -> tuple[float, float]:
        found = wilson_interval(self.verdicts, self.runs)
        return (0.0, 1.0) if found is None else (found.low, found.high)

    @property
    def is_kept(self) -> bool:
        """Whether what was seen breaks no promise beyond chance (Wilson's interval, 95 %)."""
        most = self.scenario.most_verdicts
        return most is None or self.interval[0] <= most

    def within(self, share: float) -> float:
        """The labels with which `share` of the runs had a verdict."""
        return float(np.quantile(self.labels, share, method="higher"))

    def to_json(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario.name,
            "runs": self.runs,
            "verdicts": self.verdicts,
            "verdicts_share_95": self.interval,
            "median_labels": self.within(0.5),
            "labels_of_80_percent": self.within(0.8),
            "is_promise_kept": self.is_kept,
        }


def simulate(
    scenario: Scenario, runs: int, seed: int, advance: Callable[[], None], until: float
) -> Result:
    """Run the scenario at most `runs` times, and at least once, until a monotonic time."""
    result = Result(scenario)
    for number in range(runs):
        result.labels.append(scenario.run(np.random.default_rng([seed, number])))
        advance()
        if time.monotonic() > until:
            break
    return result


def _chances(random: np.random.Generator, subjects: int, correlation: float) -> NDArray[np.float64]:
    """For each subject, the probability that a discordant pair of it favours v2."""
    if not correlation:
        return np.full(subjects, 0.5)
    if correlation < 0:
        # No version is better: v2 a little with most subjects, v1 a lot with the others.
        return np.where(random.random(subjects) < FEW, 0.05, 0.5 + 0.45 * FEW / (1 - FEW))
    # The correlation of two scores (-1, 0, 1) of a subject is DISCORDANT / (2 a + 1).
    a = (DISCORDANT / correlation - 1) / 2
    return random.beta(a, a, subjects)


def _first(passes: NDArray[np.bool_], labels: Counts | None = None) -> float:
    if not passes.any():
        return float("inf")
    look = int(np.argmax(passes))
    return look + 1 if labels is None else float(labels[look])


def clustered(
    random: np.random.Generator, *, subjects: int, count: str, correlation: float = CORRELATION,
    wins: float = 0.5, discordant: float = DISCORDANT,
) -> float:  # fmt: skip
    """Labels until a verdict over pairs; the subjects send their texts in any order.

    `count` says what counts: each `text`, of each subject the `first` text, or the `sign` of the
    subject's sum. `wins` is the share of discordant pairs that favour v2, without correlation.
    `discordant` is the share of pairs in which only one version is right, as DISCORDANT.
    The `correlation` UNEVEN means subjects of two kinds, most of which v2 answers a little better.
    """
    subject = random.permutation(np.repeat(np.arange(subjects), TEXTS))
    chances = _chances(random, subjects, correlation) + (wins - 0.5)
    sign = np.where(random.random(subject.size) < chances[subject], 1, -1)
    score = np.where(random.random(subject.size) < discordant, sign, 0)
    if count == "first":
        is_counted = np.zeros(subject.size, dtype=bool)
        is_counted[np.unique(subject, return_index=True)[1]] = True
        score = np.where(is_counted, score, 0)
    if count == "sign":
        by_subject = np.argsort(subject, kind="stable")
        sums = np.cumsum(score[by_subject].reshape(subjects, TEXTS), axis=1)
        signs = np.sign(np.concatenate([np.zeros((subjects, 1), dtype=np.int64), sums], axis=1))
        plus, minus = (np.empty(subject.size, dtype=np.int64) for _ in range(2))
        plus[by_subject] = np.diff((signs > 0).astype(np.int64), axis=1).ravel()
        minus[by_subject] = np.diff((signs < 0).astype(np.int64), axis=1).ravel()
    else:
        plus, minus = (score > 0).astype(np.int64), (score < 0).astype(np.int64)
    return _first(log_e_discordant(np.cumsum(minus), np.cumsum(plus)) >= LIMIT)


def arms(
    random: np.random.Generator, *,
    v1: float, v2: float, v2_share: float, labels: int, label_share: float | None = None,
) -> float:  # fmt: skip
    """Labels until a verdict over two arms; looks are 2 % of the labels apart, or one.

    `label_share` is the share that v2 was expected to get, `v2_share` that which it gets.
    """
    to_v2 = random.random(labels) < v2_share
    right = random.random(labels) < np.where(to_v2, v2, v1)
    of_arms = (~to_v2 & right, ~to_v2 & ~right, to_v2 & right, to_v2 & ~right)
    counts = [np.cumsum(chosen) for chosen in of_arms]
    looks = np.unique(np.geomspace(1, labels, 400).astype(np.int64))
    v1_right, v1_wrong, v2_right, v2_wrong = (count[looks - 1].astype(float) for count in counts)
    may_pass = log_e_at_most(v1_right, v1_wrong, v2_right, v2_wrong) >= LIMIT
    share = v2_share if label_share is None else label_share
    for at in np.flatnonzero(may_pass):
        of_v1, of_v2 = (v1_right[at], v1_wrong[at]), (v2_right[at], v2_wrong[at])
        if ArmsEvidence(of_v1, of_v2, share).log_e() >= LIMIT:
            return float(looks[at])
    return float("inf")


def split(random: np.random.Generator, *, v2_share: float, subjects: int) -> float:
    """Subjects until a sample ratio mismatch is found in a correct split."""
    v2 = np.cumsum(random.random(subjects) < v2_share)
    log_e = log_e_split(np.arange(1, subjects + 1) - v2, v2, v2_share)
    return _first(log_e >= log_threshold(0.001))


def scenarios(scale: float = 1.0) -> Iterator[Scenario]:
    """The scenarios; `scale` shortens their tests."""
    subjects, labels = int(2_000 * scale), int(20_000 * scale)

    def pairs(**options: float | str) -> Run:
        return partial(clustered, **{"subjects": subjects, **options})  # type: ignore[arg-type]

    yield Scenario("pairs of one subject each, equal", pairs(count="text", correlation=0.0), ALPHA)
    yield Scenario("20 alike texts of a subject, equal", pairs(count="first"), ALPHA)
    yield Scenario("the same, each text counted", pairs(count="text"))
    yield Scenario("the same, sign of each subject's sum", pairs(count="sign"))
    uneven = {"correlation": UNEVEN}
    yield Scenario("v1 much better with few, v2 with many", pairs(count="first", **uneven), ALPHA)
    yield Scenario("the same, sign of each subject's sum", pairs(count="sign", **uneven))
    wins = {"correlation": 0.0, "wins": 0.625}
    yield Scenario("10 % to 6 %, a text of each subject", pairs(count="text", **wins))
    run = pairs(count="text", correlation=0.0, discordant=0.12, wins=7 / 12)
    yield Scenario("7 % to 5 %, a text of each subject", run)
    yield Scenario("10 % to 6 %, 20 texts of each subject", pairs(count="first", **wins))
    for accuracy, share in ((0.5, 0.5), (0.9, 0.5), (0.9, 0.2), (0.99, 0.05), (0.9, 0.01)):
        run = partial(arms, v1=accuracy, v2=accuracy, v2_share=share, labels=labels)
        yield Scenario(f"arms, {accuracy:.0%} right, {share:.0%} to v2, equal", run, ALPHA)
    equal = partial(arms, v1=0.9, v2=0.9, labels=labels)
    run = partial(equal, v2_share=0.5, label_share=0.05)
    yield Scenario("arms, 90% right, 50% and not 5% to v2, equal", run, ALPHA)
    better: list[tuple[float, float, float, int]] = [
        (0.85, 0.9, 0.5, 2), (0.85, 0.95, 0.1, 2), (0.99, 0.995, 0.5, 5), (0.85, 0.82, 0.05, 10),
    ]  # fmt: skip
    for v1, v2, share, longer in better:
        run = partial(arms, v1=v1, v2=v2, v2_share=share, labels=labels * longer)
        yield Scenario(f"arms, {v1:.1%} to {v2:.1%}, {share:.0%} to v2", run)
    run = partial(arms, v1=0.85, v2=0.9, v2_share=0.3, label_share=0.5, labels=labels * 2)
    yield Scenario("arms, 85.0% to 90.0%, 30% and not 50% to v2", run)
    for share in (0.5, 0.05):
        run = partial(split, v2_share=share, subjects=labels)
        yield Scenario(f"correct split, {share:.0%} to v2", run, 0.001)
