"""The engine gate: an engine whose answers differ from the float32 engine's is not saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from core.types import Classification, Sentiment
from runners.classifier import Classifier

MIN_TEXTS = 2_000
MIN_AGREEMENT = 0.995
MAX_MEAN_DIFFERENCE = 0.01
MAX_ACCURACY_LOSS = 0.003

# Texts in one step of the progress bar.
_STEP_TEXTS = 64


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A real text and its label, given by people."""

    text: str
    label: Sentiment


@dataclass(frozen=True, slots=True)
class EngineTexts:
    """Real texts: `calibration` to choose 8-bit scales, `gate` to compare engines on.

    No text is in both. The gate needs `MIN_TEXTS`, of all lengths.
    """

    calibration: Sequence[str]
    gate: Sequence[LabelledText]


@dataclass(frozen=True, slots=True)
class GateReport:
    """How an engine's answers differ from those of the float32 engine on the same weights.

    `mean_difference` is the mean, over the texts, of the largest difference of a probability.
    """

    texts: int
    agreement: float
    mean_difference: float
    accuracy: float
    reference_accuracy: float

    @property
    def passed(self) -> bool:
        return (
            self.texts >= MIN_TEXTS
            and self.agreement >= MIN_AGREEMENT
            and self.mean_difference <= MAX_MEAN_DIFFERENCE
            # Rounded: 1 - 0.997 is a little more than 0.003 in floating point.
            and round(self.reference_accuracy - self.accuracy, 9) <= MAX_ACCURACY_LOSS
        )

    def as_metadata(self) -> dict[str, Any]:
        return {
            name: round(value, 5) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }

    def __str__(self) -> str:
        return (
            f"agreement {self.agreement:.2%}, mean |dp| {self.mean_difference:.4f}, "
            f"accuracy {self.accuracy:.2%} (float32 {self.reference_accuracy:.2%}) "
            f"on {self.texts:,} texts"
        )


class Gate:
    """Compares the answers of engines with those of the float32 engine on the same texts."""

    def __init__(
        self,
        reference: Classifier,
        texts: Sequence[LabelledText],
        *,
        streams: int = 1,
        progress: Callable[[int], object] = lambda _texts: None,
    ) -> None:
        """Classify `texts` with the reference; `compare` will do so with an engine.

        Both use `streams` cores and call `progress`, from any thread, with the number of texts just
        classified.
        """
        # Sorted by length, so that a batch holds texts of one length and little padding.
        self._texts = sorted(texts, key=lambda labelled: len(labelled.text))
        self._streams = streams
        self._progress = progress
        self._reference = self._classify(reference)

    def compare(self, candidate: Classifier) -> GateReport:
        return report(self._texts, self._classify(candidate), self._reference)

    def _classify(self, classifier: Classifier) -> list[Classification]:
        return classify_texts(
            classifier, self._texts, streams=self._streams, progress=self._progress
        )


def report(
    texts: Sequence[LabelledText],
    answers: Sequence[Classification],
    reference: Sequence[Classification],
) -> GateReport:
    """How `answers` to the texts differ from those of the reference."""
    pairs = list(zip(answers, reference, strict=True))
    return GateReport(
        texts=len(pairs),
        agreement=float(np.mean([a.sentiment == b.sentiment for a, b in pairs])),
        mean_difference=float(np.mean([largest_difference(*pair) for pair in pairs])),
        accuracy=accuracy(texts, answers),
        reference_accuracy=accuracy(texts, reference),
    )


def classify_texts(
    classifier: Classifier,
    texts: Sequence[LabelledText],
    *,
    streams: int,
    progress: Callable[[int], object] = lambda _texts: None,
) -> list[Classification]:
    """Classify `texts` on `streams` cores, in order.

    Calls `progress`, from any thread, with the number of texts just classified.
    """

    def classify(start: int) -> list[Classification]:
        step = texts[start : start + _STEP_TEXTS]
        answers = classifier.infer([labelled.text for labelled in step])
        progress(len(step))
        return answers

    with ThreadPoolExecutor(streams) as threads:
        steps = threads.map(classify, range(0, len(texts), _STEP_TEXTS))
        return [answer for step in steps for answer in step]


def accuracy(texts: Sequence[LabelledText], answers: Sequence[Classification]) -> float:
    """The share of answers that are the label of their text."""
    pairs = zip(texts, answers, strict=True)
    return float(np.mean([answer.sentiment == labelled.label for labelled, answer in pairs]))


def largest_difference(first: Classification, second: Classification) -> float:
    """The largest difference of a class's probability; a missing class counts as 0."""
    labels = first.scores | second.scores
    return max(
        abs(first.scores.get(label, 0.0) - second.scores.get(label, 0.0)) for label in labels
    )
