"""The names of classes that say a sentiment by themselves."""

from __future__ import annotations

import re

from core.types import SENTIMENT_OF_LABEL, Sentiment

_SENTIMENT_OF_STARS: dict[int, Sentiment] = {
    1: "negative", 2: "negative", 3: "neutral", 4: "positive", 5: "positive"
}  # fmt: skip
_DIGIT_OF_WORD = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
_STARS = re.compile(rf"([1-5]|{'|'.join(_DIGIT_OF_WORD)}) ?stars?")
_DEGREE = re.compile(r"(?:very|extremely|strongly|slightly|somewhat) (.+)")


def sentiment_of(name: str) -> Sentiment | None:
    """The sentiment that a name says, in any case; None if it is not known."""
    plain = _plain(name)
    if (stars := stars_of(name)) is not None:
        return _SENTIMENT_OF_STARS[stars]
    degree = _DEGREE.fullmatch(plain)
    return SENTIMENT_OF_LABEL.get(degree[1] if degree else plain)


def stars_of(name: str) -> int | None:
    """The number of stars of a name, 1 to 5."""
    match = _STARS.fullmatch(_plain(name))
    if match is None:
        return None
    return _DIGIT_OF_WORD.get(match[1]) or int(match[1])


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.lower()).strip()
