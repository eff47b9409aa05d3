"""The accuracy of models on held-out texts: the gate of an import, and two models compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.types import Classification
from models.export.gate import LabelledText, accuracy, classify_texts, largest_difference
from runners.classifier import Classifier
from runners.cpu import usable_cpus
from runners.model_store import InvalidCheckpoint
from stats.outcomes import Interval, PairedOutcomes

# With fewer, the interval of an accuracy of 90 % is wider than 8 points.
MIN_TEXTS = 200
# Accuracy that a model may lose to the one it is compared with. On 2,000 texts, an equally good
# model that differs on a tenth of them passes four times in five.
MARGIN = 0.02
# The metadata of a model that was imported without held-out texts.
NOT_EVALUATED = {"gates": {"accuracy": "not evaluated: no held-out texts were given"}}


@dataclass(frozen=True, slots=True)
class AccuracyGate:
    """Requires a minimum accuracy, or non-inferiority to another model, on held-out texts.

    Non-inferior: the interval of the difference lies above `-margin`, a one-sided test of 2.5 %. So
    with too few texts a model is rejected, not accepted.
    """

    texts: Sequence[LabelledText]
    source: str
    min_accuracy: float | None = None
    against: Classifier | None = None
    against_tag: str | None = None
    margin: float = MARGIN

    def __call__(self, candidate: Classifier) -> Mapping[str, Any]:
        """Return the candidate's figures, for its metadata.

        Raises:
            InvalidCheckpoint: it is not accurate enough.
        """
        answers = classify_texts(candidate, self.texts, streams=usable_cpus())
        texts, share = len(self.texts), accuracy(self.texts, answers)
        figures: dict[str, Any] = {
            "texts": texts, "accuracy": round(share, 5), "source": self.source
        }  # fmt: skip
        if self.min_accuracy is not None and share < self.min_accuracy:
            raise InvalidCheckpoint(
                f"the model is right on {share:.2%} of {texts:,} held-out texts; "
                f"{self.min_accuracy:.2%} are required"
            )
        if self.against is not None:
            baseline = classify_texts(self.against, self.texts, streams=usable_cpus())
            compared = side_by_side(self.texts, baseline, answers)
            low, high = compared.interval.low, compared.interval.high
            figures |= {
                "against": self.against_tag,
                "margin": self.margin,
                "difference": round(compared.difference, 5),
                "difference_interval": [round(low, 5), round(high, 5)],
            }
            if low < -self.margin:
                raise InvalidCheckpoint(
                    f"the model may be less accurate than {self.against_tag} by {-low:.2%}, and "
                    f"{self.margin:.2%} is allowed: on {texts:,} held-out texts the "
                    f"difference is {compared.difference:+.2%} (95% interval {low:+.2%} to "
                    f"{high:+.2%}){'; more texts may decide it' if high >= -self.margin else ''}"
                )
        return {"gates": {"accuracy": figures}}


def held_out_sentence(figures: Mapping[str, Any]) -> str:
    """What the gate measured, as its metadata has it."""
    told = (
        f"right on {figures['accuracy']:.2%} of {figures['texts']:,} held-out texts "
        f"({figures['source']})"
    )
    if "against" not in figures:
        return told
    low, high = figures["difference_interval"]
    return (
        f"{told}, {figures['difference']:+.2%} against {figures['against']} "
        f"(95% interval {low:+.2%} to {high:+.2%}; {figures['margin']:.2%} may be lost)"
    )


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Two models on the same texts; `difference` is the second's accuracy minus the first's."""

    outcomes: PairedOutcomes
    agreement: float
    mean_difference: float
    interval: Interval
    differing: tuple[tuple[LabelledText, Classification, Classification], ...]

    @property
    def difference(self) -> float:
        won, lost = self.outcomes.only_v2_right, self.outcomes.only_v1_right
        return (won - lost) / self.outcomes.labelled

    @property
    def verdict(self) -> str:
        if self.interval.low > 0:
            return "the second is more accurate"
        if self.interval.high < 0:
            return "the first is more accurate"
        return "neither is shown to be more accurate"


def side_by_side(
    texts: Sequence[LabelledText],
    first: Sequence[Classification],
    second: Sequence[Classification],
) -> SideBySide:
    """Compare two models' answers; the interval is Tango's, 95 %, for paired shares."""
    # Only now: importing SciPy takes a third of a second, which `sentiment models list` needs not.
    from stats.paired import tango_interval

    answered = list(zip(texts, first, second, strict=True))
    counts = Counter((a.sentiment == t.label, b.sentiment == t.label) for t, a, b in answered)
    outcomes = PairedOutcomes(
        both_right=counts[True, True],
        only_v1_right=counts[True, False],
        only_v2_right=counts[False, True],
        none_right=counts[False, False],
    )
    interval = tango_interval(outcomes)
    if interval is None:
        raise ValueError("no texts to compare on")
    differing = tuple(answer for answer in answered if answer[1].sentiment != answer[2].sentiment)
    return SideBySide(
        outcomes,
        1 - len(differing) / len(texts),
        sum(largest_difference(a, b) for _, a, b in answered) / len(texts),
        interval,
        differing,
    )
