"""The result of a replay, and how it is made of the log's texts and a candidate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from analytics.logged_texts import LoggedTexts, LogSelection
from core.types import Endpoint, Sentiment, Version
from scoring.replay.comparison import (
    Comparison,
    ServedBy,
    compare,
    compare_each,
    newest_of_each_text,
)
from scoring.replay.observations import Observation
from scoring.replay.timing import MAX_TEXTS, TimedText, Timing, time_by_turns
from scoring.scorer import LoadedModel

CANDIDATE, SERVED = "candidate", "served"


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the store; its identity is its revision with its engine on this machine."""

    tag: str
    identity: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Read:
    """What was read of the log, and how much of it was compared."""

    since: datetime
    until: datetime
    endpoints: tuple[Endpoint, ...]
    version: Version | None
    predictions: int
    without_text: int
    different_texts: int
    sampled_texts: int
    sampled_predictions: int
    sampled_share: float

    @classmethod
    def of(cls, selection: LogSelection, found: LoggedTexts) -> Read:
        return cls(
            selection.span.since,
            selection.span.until,
            tuple(selection.endpoints),
            selection.version,
            found.predictions,
            found.without_text,
            found.different_texts,
            len(found.texts),
            found.sampled_predictions,
            found.sampled_share,
        )

    @property
    def is_sample(self) -> bool:
        return self.sampled_share < 1


@dataclass(frozen=True, slots=True)
class Speed:
    """Both models on the same texts by turns; `served` is None if it is not in the store here.

    A cost is that of a million predictions that no cache answers, by their CPU time.
    """

    candidate: Timing
    served: Timing | None
    served_model: Model | None
    price_per_core_hour: float
    candidate_cost_per_million: float
    served_cost_per_million: float | None


@dataclass(frozen=True, slots=True)
class FlippedText:
    """A text with the newest answer that was served to it, and the other one of the candidate."""

    prediction_id: UUID
    text: str
    predictions: int
    label: Sentiment | None
    served_by: ServedBy
    served: Sentiment
    served_confidence: float
    candidate: Sentiment
    candidate_confidence: float

    @classmethod
    def of(cls, seen: Observation) -> FlippedText:
        return cls(
            seen.served.newest_id,
            seen.logged.text,
            seen.logged.predictions,
            seen.logged.label,
            ServedBy(seen.answered.version, seen.answered.revision),
            seen.served.sentiment,
            seen.served.confidence,
            seen.candidate.sentiment,
            seen.candidate.confidence,
        )


@dataclass(frozen=True, slots=True)
class Part:
    """The comparison with the weights that answered a part of the traffic."""

    served_by: ServedBy
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class Replay:
    """A replay as one value: what --json prints, and what the report shows."""

    made_at: datetime
    candidate: Model
    read: Read
    overall: Comparison
    parts: tuple[Part, ...]
    speed: Speed
    flipped_texts: tuple[FlippedText, ...]

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = msgspec.to_builtins(self)
        return document


def compare_all(observations: Sequence[Observation]) -> tuple[Comparison, tuple[Part, ...]]:
    """The comparison with all that was served, and one with each of the weights."""
    parts = compare_each(observations)
    return compare(observations), tuple(Part(*part) for part in parts.items())


def measure_speed(
    observations: Sequence[Observation],
    candidate: LoadedModel,
    served: tuple[Model, LoadedModel] | None,
    price_per_core_hour: float,
    progress: Callable[[float], object] = lambda _share: None,
) -> Speed:
    """Time the models on the first texts of the sample, which are a sample themselves."""
    texts = [
        TimedText(seen.logged.text, seen.answered.long_text)
        for seen in newest_of_each_text(observations)[:MAX_TEXTS]
    ]
    models = {CANDIDATE: candidate} | ({} if served is None else {SERVED: served[1]})
    timings = time_by_turns(models, texts, progress=progress)
    of_candidate, of_served = timings[CANDIDATE], timings.get(SERVED)
    return Speed(
        candidate=of_candidate,
        served=of_served,
        served_model=None if served is None else served[0],
        price_per_core_hour=price_per_core_hour,
        candidate_cost_per_million=of_candidate.cost_per_million(price_per_core_hour),
        served_cost_per_million=(
            None if of_served is None else of_served.cost_per_million(price_per_core_hour)
        ),
    )


def flipped_texts(flips: Iterable[Observation], logged: set[UUID]) -> tuple[FlippedText, ...]:
    """Those flips whose texts are still in the log: others were erased meanwhile."""
    return tuple(FlippedText.of(seen) for seen in flips if seen.served.newest_id in logged)
