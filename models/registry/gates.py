"""The gates that an imported model passes or is refused at, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.export.gate import LabelledText, classify_texts
from models.registry.held_out import judge, side_by_side
from runners.classifier import Classifier
from runners.cpu import usable_cpus
from runners.model_store import InvalidCheckpoint

# What a model may lose to the one that it is judged against. On 2,000 texts, one that is equal to
# it and differs on a tenth of them passes four times in five.
MARGIN = 0.02


@dataclass(frozen=True, slots=True)
class AccuracyGate:
    """On labelled texts that it was not trained on: a least accuracy, and no worse than another.

    "No worse" is shown, not presumed: the interval of the difference ends above `-margin`, which is
    a one-sided test of 2.5 % (non-inferiority). Too few texts refuse a model rather than pass it.
    """

    texts: Sequence[LabelledText]
    source: str
    least: float | None = None
    against: Classifier | None = None
    against_tag: str | None = None
    margin: float = MARGIN

    def __call__(self, candidate: Classifier) -> Mapping[str, Any]:
        """What is to be kept of it.

        Raises:
            InvalidCheckpoint: it is not accurate enough.
        """
        answers = classify_texts(candidate, self.texts, streams=usable_cpus())
        judged = judge(self.texts, answers)
        told: dict[str, Any] = {
            "texts": judged.texts, "accuracy": round(judged.accuracy, 5), "source": self.source,
        }  # fmt: skip
        if self.least is not None and judged.accuracy < self.least:
            raise InvalidCheckpoint(
                f"it is right on {judged.accuracy:.2%} of {judged.texts:,} held-out texts; "
                f"{self.least:.2%} are asked for"
            )
        if self.against is not None:
            other = classify_texts(self.against, self.texts, streams=usable_cpus())
            compared = side_by_side(self.texts, other, answers)
            told |= {
                "against": self.against_tag,
                "margin": self.margin,
                "difference": round(compared.difference, 5),
                "difference_interval": [
                    round(compared.interval.low, 5), round(compared.interval.high, 5),
                ],
            }  # fmt: skip
            low, high = compared.interval.low, compared.interval.high
            if low < -self.margin:
                raise InvalidCheckpoint(
                    f"it may be less accurate than {self.against_tag} by {-low:.2%}, and "
                    f"{self.margin:.2%} is allowed: on {judged.texts:,} held-out texts the "
                    f"difference is {compared.difference:+.2%} (95 % interval {low:+.2%} to "
                    f"{high:+.2%}){'; more texts would tell' if high >= -self.margin else ''}"
                )
        return {"gates": {"accuracy": told}}


def not_gated(_candidate: Classifier) -> Mapping[str, Any]:
    """What is kept where nobody named held-out texts."""
    return {"gates": {"accuracy": "not judged: no held-out texts were named"}}
