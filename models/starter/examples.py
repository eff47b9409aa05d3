"""Labelled texts in the form that training and measuring use."""

import hashlib
import math
import re
from dataclasses import dataclass

SPLIT_SEED = 20
MIN_RATING = 0.5
LABEL_SMOOTHING = 0.05

_NEGATION = re.compile(
    r"\b(not|no|never|nothing|nobody|none|neither|nor|without|hardly|cannot|dont|cant|wont|didnt"
    r"|doesnt|isnt|wasnt|\w+n['\u2019]t)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Example:
    """A text and the probability that a person calls it positive."""

    text: str
    positive: float

    @property
    def label(self) -> int:
        """0 negative, 1 positive."""
        return int(self.positive > 0.5)


@dataclass(frozen=True)
class Rated:
    """A text with the mean of its human ratings (-4 to 4) and the document it was cut from."""

    text: str
    rating: float
    document: str


def rated_example(snippet: Rated) -> Example:
    """A soft label from a mean rating: +-0.5 gives 0.73 / 0.27, +-2 gives 0.98 / 0.02."""
    return Example(snippet.text, 0.5 + 0.5 * math.tanh(snippet.rating))


def labelled_example(text: str, *, positive: bool) -> Example:
    """A smoothed hard label."""
    return Example(text, 1 - LABEL_SMOOTHING if positive else LABEL_SMOOTHING)


def share_of(key: str) -> float:
    """A stable pseudo-random number in [0, 1) for a text or a document, the same on any machine."""
    digest = hashlib.sha256(f"{SPLIT_SEED}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def has_negation(text: str) -> bool:
    """Whether an English negation cue occurs."""
    return _NEGATION.search(text) is not None
