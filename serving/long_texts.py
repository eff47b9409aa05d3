"""What `long_text` means for shared computations, for the cache, and for refusals."""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import TextTooLong
from core.types import Classification, LongText


def flight_of(key: str, long_text: LongText) -> str:
    """The name of a computation: a refused text has the key of a truncated one, not its answer."""
    return f"{key} {long_text}"


def key_of_flight(flight: str) -> str:
    return flight.rpartition(" ")[0]


def is_complete(classification: Classification, long_text: LongText) -> bool:
    """Whether an answer may be cached.

    A refused text has no answer. A runner of an earlier release truncates a text whose windows were
    requested; the next one may be of this release.
    """
    windows = classification.windows
    return windows > 1 or (
        windows == 1 and not (long_text == "windows" and classification.truncated)
    )


def refuse_long(answers: Sequence[Classification], window: int | None) -> None:
    """Raise TextTooLong if an answer is to a part of its text."""
    reasons = {}
    for index, answer in enumerate(answers):
        if answer.truncated:
            # A runner of an earlier release computes such a text, and does not count past its end.
            length = f"{answer.token_count:,}" if not answer.windows else "too many"
            limit = f"{window:,}" if window else "fewer"
            reasons[index] = f"has {length} tokens, and the window of the model has {limit}"
    if reasons:
        is_single = len(answers) == 1
        raise TextTooLong(reasons, lambda index: "text" if is_single else f"texts.{index}")
