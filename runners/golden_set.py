"""The canary: texts that a model must answer as it did when it was saved, before it may serve."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.types import Classification, Sentiment

FILE = "canary.json"
# Of both sides: below, an engine with other rounding may well say something else.
SURE = 0.8
# The largest difference of a probability, on average over the texts. What an engine may differ by
# on the thousands of texts of the gate is a hundredth; these are few.
MAX_MEAN_DIFFERENCE = 0.05

TEXTS = (
    "Wonderful.",
    "Terrible!",
    "A warm, funny and clever film that I would gladly see again.",
    "The plot makes no sense, the acting is wooden, and it is far too long.",
    "It arrived on time and does exactly what it says.",
    "It broke after two days and nobody answers my letters.",
    "The room was clean and quiet, and the breakfast was the best we had on the whole trip.",
    "We waited for an hour, and then the food was cold.",
    "I expected little and was delighted.",
    "I expected much and was let down.",
    "Not bad at all.",
    "Not good at all.",
    "The first half drags, but the second more than makes up for it.",
    "Great actors, wasted on a script that nobody should have to sit through.",
    "It is a phone. It makes calls.",
    "I AM SO HAPPY WITH THIS!!!",
    "meh :(",
    "Très bien, danke schön, 素晴らしい, прекрасно.",
    "😀 👍 🎉",
    "😡 👎 💔",
    "5/5, five stars, 100 % recommended",
    "http://example.org/review?id=17&lang=en",
    "x",
    "It begins well, goes on well, and ends well. " * 80,
)

Classify = Callable[[Sequence[str]], list[Classification]]
Answers = Mapping[str, Mapping[Sentiment, float]]


def write_canary(folder: Path, classify: Classify) -> None:
    """Keep with a model that is being saved what its reference engine says."""
    answers = [
        {"text": text, "scores": answer.scores}
        for text, answer in zip(TEXTS, classify(TEXTS), strict=True)
    ]
    (folder / FILE).write_text(json.dumps(answers, ensure_ascii=False, indent=1) + "\n")


def read_golden_set(folder: Path) -> Answers | None:
    """What was kept; None for a model that was saved before anything was.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        kept: Any = json.loads((folder / FILE).read_text())
    except FileNotFoundError:
        return None
    try:
        return {each["text"]: dict(each["scores"]) for each in kept}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{FILE} holds no texts with scores") from error


def fault(classify: Classify, canary: Answers | None) -> str | None:
    """What is wrong with a model's answers, in a sentence; None if nothing is.

    Without a canary its answers must be probabilities, and not the same to everything.
    """
    texts = list(canary) if canary else list(TEXTS)
    answers = classify(texts)
    if any(not _are_probabilities(answer.scores) for answer in answers):
        return "its answers are no probabilities"
    if not canary:
        constant = len({tuple(answer.scores.values()) for answer in answers}) == 1
        return f"it says the same of {len(texts)} different texts" if constant else None
    pairs = [(answer, canary[text]) for text, answer in zip(texts, answers, strict=True)]
    if any(answer.scores.keys() != was.keys() for answer, was in pairs):
        return "it has other classes than when it was saved"
    otherwise = [
        text
        for text, (answer, was) in zip(texts, pairs, strict=True)
        if min(answer.confidence, max(was.values())) >= SURE and was[answer.sentiment] < SURE
    ]
    if otherwise:
        return (
            f"it says otherwise than when it was saved of {len(otherwise)} of {len(texts)} texts, "
            f"such as {otherwise[0][:60]!r}"
        )
    differences = [
        max(abs(score - was[sentiment]) for sentiment, score in answer.scores.items())
        for answer, was in pairs
    ]
    mean = sum(differences) / len(differences)
    if mean > MAX_MEAN_DIFFERENCE:
        return (
            f"its probabilities differ by {mean:.3f} from when it was saved; "
            f"{MAX_MEAN_DIFFERENCE:g} is allowed"
        )
    return None


def _are_probabilities(scores: Mapping[Sentiment, float]) -> bool:
    values = list(scores.values())
    return all(math.isfinite(one) and 0 <= one <= 1 for one in values) and math.isclose(
        sum(values), 1.0, abs_tol=1e-3
    )
