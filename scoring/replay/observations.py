"""A candidate's answers beside the logged ones: to the same texts, and read in the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from analytics.logged_texts import Answered, Answers, LoggedText
from core.types import Classification, LongText, Version
from scoring.scorer import LoadedModel, Scorer

CHUNK_TEXTS = 256
# A scorer has its models by their slots; whichever slot a candidate is meant for, it has one here.
SLOT: Version = "v1"


@dataclass(frozen=True, slots=True)
class Observation:
    """One logged text with what one model answered to it, and what the candidate answers."""

    logged: LoggedText
    answered: Answered
    served: Answers
    candidate: Classification

    @property
    def is_flip(self) -> bool:
        """Whether the candidate contradicts the newest of the served answers."""
        return self.candidate.sentiment != self.served.sentiment

    @property
    def sureness(self) -> float:
        """How sure the less sure of the two is."""
        return min(self.served.confidence, self.candidate.confidence)


def observe(
    texts: Sequence[LoggedText],
    candidate: LoadedModel,
    *,
    streams: int,
    progress: Callable[[float], object] = lambda _share: None,
) -> list[Observation]:
    """Score the texts with a candidate, each in every way in which it was read.

    The observations are in the order of the texts.
    """
    found: dict[str, list[Observation]] = {logged.text: [] for logged in texts}
    total = sum(len(_modes(logged)) for logged in texts)
    scored = 0
    for long_text in get_args(LongText):
        chosen = [logged for logged in texts if long_text in _modes(logged)]
        if not chosen:
            continue
        with Scorer({SLOT: candidate}, streams=streams, long_text=long_text) as scorer:
            for chunk in _chunks(chosen):
                answers = scorer.score([logged.text for logged in chunk])[SLOT]
                for logged, answer in zip(chunk, answers, strict=True):
                    found[logged.text] += _beside(logged, long_text, answer)
                scored += len(chunk)
                progress(scored / total)
    return [seen for of_text in found.values() for seen in of_text]


def _modes(logged: LoggedText) -> set[LongText]:
    return {answered.long_text for answered in logged.answers}


def _chunks(texts: Sequence[LoggedText]) -> Iterator[Sequence[LoggedText]]:
    return (texts[start : start + CHUNK_TEXTS] for start in range(0, len(texts), CHUNK_TEXTS))


def _beside(
    logged: LoggedText, long_text: LongText, candidate: Classification
) -> Iterator[Observation]:
    for answered, served in logged.answers.items():
        if answered.long_text == long_text:
            yield Observation(logged, answered, served, candidate)
