"""The counts for the statistics: correct predictions, and the split of the traffic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.types import Sentiment
from stats.histogram import Counts


# A closed range, in the unit of the bounded value. (A docstring would be in the OpenAPI document.)
@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedOutcomes:
    """Counts of labelled texts that both versions answered, by the versions that were right.

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
        """The pairs that favour neither version."""
        return self.both_right + self.none_right

    @property
    def v1(self) -> ArmOutcomes:
        return ArmOutcomes(self.labelled, self.both_right + self.only_v1_right)

    @property
    def v2(self) -> ArmOutcomes:
        return ArmOutcomes(self.labelled, self.both_right + self.only_v2_right)


@dataclass(frozen=True, slots=True)
class ArmOutcomes:
    """The number of labelled predictions of one version, and of the right ones among them.

    Raises:
        ValueError: `right` lies outside [0, labelled].
    """

    labelled: int
    right: int

    def __post_init__(self) -> None:
        if not 0 <= self.right <= self.labelled:
            raise ValueError(
                f"the right predictions must be between 0 and {self.labelled}: {self.right}"
            )

    @property
    def wrong(self) -> int:
        return self.labelled - self.right

    @property
    def accuracy(self) -> float | None:
        return self.right / self.labelled if self.labelled else None


@dataclass(frozen=True, slots=True)
class TrafficSplit:
    """How many subjects each version got; `v2_share`, in [0, 1], is the configured share.

    `label_share`, in [0, 1], is the share of the labels that v2 was expected to get before the
    test; None if nobody said (`stats.arms`).

    A subject stays with its version, so all its requests are a single draw: a subject counts once.
    A request without a subject is a separate draw.

    Raises:
        ValueError: a count is negative, or a share lies outside [0, 1].
    """

    v1: int
    v2: int
    v2_share: float
    label_share: float | None = None

    def __post_init__(self) -> None:
        if min(self.v1, self.v2) < 0:
            raise ValueError(f"counts cannot be negative: {self}")
        for share in (self.v2_share, self.label_share):
            if share is not None and not 0 <= share <= 1:
                raise ValueError(f"a share must lie in [0, 1]: {share}")


@dataclass(frozen=True, slots=True)
class Profile:
    """The distributions of the predictions of one window, as the rollups count them."""

    sentiment: Mapping[Sentiment, int]
    confidence: Counts
    text_characters: Counts
    token_count: Counts


@dataclass(frozen=True, slots=True)
class LabelledBin:
    """The labelled predictions of a confidence bin: `correct` of `count` are right.

    `confidence_sum` is over the same predictions, so that the bin's width costs no precision. With
    weights, the three are sums of weights, `labels` are counted, and `squares` is the sum of the
    squared weights; without, a label weighs 1.
    """

    count: float
    confidence_sum: float
    correct: float
    labels: int | None = None
    squares: float | None = None

    def __add__(self, other: LabelledBin) -> LabelledBin:
        plain = self.squares is None and other.squares is None
        return LabelledBin(
            self.count + other.count,
            self.confidence_sum + other.confidence_sum,
            self.correct + other.correct,
            None if plain else self.number + other.number,
            None if plain else self._squares + other._squares,
        )

    @property
    def number(self) -> int:
        """The number of labels."""
        return int(self.count) if self.labels is None else self.labels

    @property
    def effective(self) -> float:
        """The labels of equal weight that tell as much: (sum w)^2 / sum w^2 (Kish 1965)."""
        return self.count if self.squares is None else self.count**2 / (self.squares or 1.0)

    @property
    def _squares(self) -> float:
        return self.count if self.squares is None else self.squares
