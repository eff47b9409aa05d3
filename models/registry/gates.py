"""The accuracy gate of an import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.export.gate import LabelledText, classify_texts
from models.registry.held_out import evaluate, side_by_side
from runners.classifier import Classifier
from runners.cpu import usable_cpus
from runners.model_store import InvalidCheckpoint

# Accuracy that a model may lose to the one it is compared with. On 2,000 texts, an equally good
# model that differs on a tenth of them passes four times in five.
MARGIN = 0.02


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
        result = evaluate(self.texts, answers)
        figures: dict[str, Any] = {
            "texts": result.texts, "accuracy": round(result.accuracy, 5), "source": self.source,
        }  # fmt: skip
        if self.min_accuracy is not None and result.accuracy < self.min_accuracy:
            raise InvalidCheckpoint(
                f"the model is right on {result.accuracy:.2%} of {result.texts:,} held-out texts; "
                f"{self.min_accuracy:.2%} are required"
            )
        if self.against is not None:
            baseline = classify_texts(self.against, self.texts, streams=usable_cpus())
            compared = side_by_side(self.texts, baseline, answers)
            figures |= {
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
                    f"the model may be less accurate than {self.against_tag} by {-low:.2%}, and "
                    f"{self.margin:.2%} is allowed: on {result.texts:,} held-out texts the "
                    f"difference is {compared.difference:+.2%} (95 % interval {low:+.2%} to "
                    f"{high:+.2%}){'; more texts may decide it' if high >= -self.margin else ''}"
                )
        return {"gates": {"accuracy": figures}}


def not_evaluated(_candidate: Classifier) -> Mapping[str, Any]:
    """The metadata of a model that was imported without held-out texts."""
    return {"gates": {"accuracy": "not evaluated: no held-out texts were given"}}
