"""Golden sets: texts whose scores a model must repeat before it may serve."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.types import Classification, Sentiment

FILE = "golden_set.json"
# The name of the file in models that were saved before it was renamed.
OLD_FILE = "canary.json"
# A label may not change if both answers are at least so confident. Below that, an engine that
# rounds differently may well choose another label.
CONFIDENT = 0.8
# The largest difference of a probability, on average over the texts. On the thousands of texts of
# the gate an engine may differ by a hundredth; the golden set is small.
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

Infer = Callable[[Sequence[str]], list[Classification]]
GoldenSet = Mapping[str, Mapping[Sentiment, float]]


def write_golden_set(folder: Path, infer: Infer) -> None:
    """Save the scores that the reference engine gives, in a model's folder."""
    answers = [
        {"text": text, "scores": answer.scores}
        for text, answer in zip(TEXTS, infer(TEXTS), strict=True)
    ]
    (folder / FILE).write_text(
        json.dumps(answers, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )


def golden_set_file(folder: Path) -> Path:
    """The file of a saved model's golden set, under its old name if only that exists."""
    file, old_file = folder / FILE, folder / OLD_FILE
    return old_file if old_file.is_file() and not file.is_file() else file


def read_golden_set(folder: Path) -> GoldenSet | None:
    """Read the scores of each text; None for a model that was saved without.

    Raises:
        ValueError: the file cannot be read.
    """
    file = golden_set_file(folder)
    try:
        saved: Any = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except RecursionError as error:
        raise ValueError(f"{file.name} is nested too deeply") from error
    try:
        return {answer["text"]: dict(answer["scores"]) for answer in saved}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file.name} holds no texts with scores") from error


def check(infer: Infer, golden_set: GoldenSet | None) -> str | None:
    """Say in a sentence what is wrong with a model's answers; None if nothing is.

    Without a golden set, the scores must be probabilities and not the same for every text.
    """
    texts = list(golden_set) if golden_set else list(TEXTS)
    answers = infer(texts)
    if not all(_are_probabilities(answer.scores) for answer in answers):
        return "its scores are not probabilities"
    if not golden_set:
        is_constant = len({tuple(answer.scores.values()) for answer in answers}) == 1
        return f"it gives the same scores to {len(texts)} different texts" if is_constant else None
    pairs = [(answer, golden_set[text]) for text, answer in zip(texts, answers, strict=True)]
    if any(answer.scores.keys() != saved.keys() for answer, saved in pairs):
        return "it has other classes than when it was saved"
    changed = [
        text
        for text, (answer, saved) in zip(texts, pairs, strict=True)
        if min(answer.confidence, max(saved.values())) >= CONFIDENT
        and saved[answer.sentiment] < CONFIDENT
    ]
    if changed:
        return (
            f"its answers to {len(changed)} of {len(texts)} texts differ from when it was saved, "
            f'such as to "{changed[0][:60]}"'
        )
    differences = [
        max(abs(score - saved[sentiment]) for sentiment, score in answer.scores.items())
        for answer, saved in pairs
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
    return all(math.isfinite(value) and 0 <= value <= 1 for value in values) and math.isclose(
        sum(values), 1.0, abs_tol=1e-3
    )
