"""What a text is like, in eight numbers, and the sketch of many texts: sums that cannot be undone.

Sketches are added up, over processes and over time. They hold no text, no word and no hash. Plain
Python, because importing NumPy would take an API process a tenth of a second and 20 MB.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import Literal, get_args

ContentFeature = Literal[
    "tokens_per_word",
    "words",
    "word_length",
    "accented_letters",
    "other_scripts",
    "digits",
    "capitals",
    "punctuation",
]
CONTENT_FEATURES: tuple[ContentFeature, ...] = get_args(ContentFeature)
# A stored sketch: the number of texts, the sums of the features, and those of their products.
PAIRS = tuple(combinations_with_replacement(range(len(CONTENT_FEATURES)), 2))
SKETCH_VALUES = 1 + len(CONTENT_FEATURES) + len(PAIRS)

# Of the tokens of a text, the two that mark its ends.
_MARKS = 2
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_ACCENTED = re.compile(r"[^\W\d_\x00-\x7f]")
# Letters past Latin and its extensions (Unicode's blocks end at U+024F).
_OTHER_SCRIPT = re.compile(r"[^\W\d_\x00-\u024f]")
_DIGIT = re.compile(r"\d")
_CAPITAL = re.compile(r"[A-ZÀ-ÖØ-Þ]")
_MARK = re.compile(r"[^\w\s]")
# How each feature is bounded, so that no text outweighs a window.
_MOST = (4.0, math.inf, 12.0, 0.2, 1.0, 0.2, 0.5, 0.3)


def describe(text: str, token_count: int) -> tuple[float, ...]:
    """The values of `CONTENT_FEATURES` for a text of `token_count` tokens.

    Words of a language that the tokenizer does not know are cut into many tokens. `words` is the
    logarithm of their number, and the last five are shares of the letters or characters.
    """
    words = _WORD.findall(text)
    count, letters = max(len(words), 1), max(sum(map(len, words)), 1)
    characters = max(len(text), 1)
    values = (
        (token_count - _MARKS) / count,
        math.log(count),
        letters / count,
        len(_ACCENTED.findall(text)) / letters,
        len(_OTHER_SCRIPT.findall(text)) / letters,
        len(_DIGIT.findall(text)) / characters,
        len(_CAPITAL.findall(text)) / letters,
        len(_MARK.findall(text)) / characters,
    )
    return tuple(min(max(value, 0.0), most) for value, most in zip(values, _MOST, strict=True))


class ContentSketch:
    """How many texts were added, the sums of their features, and of the features' products."""

    def __init__(self) -> None:
        self._values = array("d", bytes(8 * SKETCH_VALUES))

    @property
    def texts(self) -> int:
        return round(self._values[0])

    def add(self, features: Sequence[float]) -> None:
        products = (features[left] * features[right] for left, right in PAIRS)
        for position, value in enumerate((1.0, *features, *products)):
            self._values[position] += value

    def to_bytes(self) -> bytes:
        """`SKETCH_VALUES` doubles, little-endian as every processor that serves."""
        return self._values.tobytes()
