"""The counts that statistics start from: who was right, and how the traffic was split."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """A closed range, in the unit of what it bounds."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedOutcomes:
    """Of the texts that both versions answered and that have a true label: who was right.

    Raises:
        ValueError: a count is negative.
    """

    both_right: int
    only_v1_right: int
    only_v2_right: int
    none_right: int

    def __post_init__(self) -> None:
        if min(self.both_right, self.only_v1_right, self.only_v2_right, self.none_right) < 0:
            raise ValueError(f"counts cannot be negative: {self}")

    @property
    def labelled(self) -> int:
        return self.concordant + self.only_v1_right + self.only_v2_right

    @property
    def concordant(self) -> int:
        """Pairs that say nothing of which version is better."""
        return self.both_right + self.none_right


@dataclass(frozen=True, slots=True)
class ArmOutcomes:
    """Of one version's predictions that have a true label: how many are right.

    Raises:
        ValueError: `right` lies outside [0, labelled].
    """

    labelled: int
    right: int

    def __post_init__(self) -> None:
        if not 0 <= self.right <= self.labelled:
            raise ValueError(f"{self.right} of {self.labelled} cannot be right")

    @property
    def wrong(self) -> int:
        return self.labelled - self.right


@dataclass(frozen=True, slots=True)
class TrafficSplit:
    """How many subjects each version got; `v2_share`, in [0, 1], is the configured share.

    A subject stays with its version, so its requests are one draw and not many: it counts once. A
    request without a subject is a draw of its own.

    Raises:
        ValueError: a count is negative, or `v2_share` lies outside [0, 1].
    """

    v1: int
    v2: int
    v2_share: float

    def __post_init__(self) -> None:
        if min(self.v1, self.v2) < 0:
            raise ValueError(f"counts cannot be negative: {self}")
        if not 0 <= self.v2_share <= 1:
            raise ValueError(f"a share lies in [0, 1], unlike {self.v2_share}")


@dataclass(frozen=True, slots=True)
class LabelledBin:
    """Predictions of one confidence bin whose true label is known: `correct` of `count` are right.

    `confidence_sum` is over the same predictions, so that nothing is lost to the bin's width.
    """

    count: int
    confidence_sum: float
    correct: int

    def __add__(self, other: LabelledBin) -> LabelledBin:
        return LabelledBin(
            count=self.count + other.count,
            confidence_sum=self.confidence_sum + other.confidence_sum,
            correct=self.correct + other.correct,
        )
