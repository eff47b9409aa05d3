"""The gates that an imported model passes or is refused at, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runners.classifier import Classifier
from runners.export.gate import LabelledText
from runners.model_store import InvalidCheckpoint
from scripts.registry.held_out import classify_all, judge, side_by_side


@dataclass(frozen=True, slots=True)
class AccuracyGate:
    """On labelled texts that it was not trained on: a least accuracy, and no worse than another."""

    texts: Sequence[LabelledText]
    source: str
    least: float | None = None
    against: Classifier | None = None
    against_tag: str | None = None

    def __call__(self, candidate: Classifier) -> Mapping[str, Any]:
        """What is to be kept of it.

        Raises:
            InvalidCheckpoint: it is not accurate enough.
        """
        answers = classify_all(candidate, self.texts)
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
            other = classify_all(self.against, self.texts)
            compared = side_by_side(self.texts, other, answers)
            told |= {
                "against": self.against_tag,
                "difference": round(compared.difference, 5),
                "difference_interval": [
                    round(compared.interval.low, 5), round(compared.interval.high, 5),
                ],
            }  # fmt: skip
            if compared.interval.high < 0:
                raise InvalidCheckpoint(
                    f"it is less accurate than {self.against_tag} by "
                    f"{-compared.difference:.2%} on {judged.texts:,} held-out texts (95 % interval "
                    f"{-compared.interval.high:.2%} to {-compared.interval.low:.2%})"
                )
        return {"gates": {"accuracy": told}}


def not_gated(_candidate: Classifier) -> Mapping[str, Any]:
    """What is kept where nobody named held-out texts."""
    return {"gates": {"accuracy": "not judged: no held-out texts were named"}}
