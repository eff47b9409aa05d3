"""Texts without a character that can be seen are refused by one rule on every way in."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from core.errors import InvalidRequest
from core.input_text import USABLE_PATTERN, refuse_unusable
from core.text_limits import Text
from datafiles.chunks import UnusableRow, checked_text
from web.schemas.predictions import AbCompareRequest, AbRequest, BatchRequest, PredictRequest

INVISIBLE: Mapping[str, str] = {
    "zero-width space": "\u200b",
    "zero-width joiner": "\u200d",
    "zero-width non-joiner": "\u200c",
    "byte-order mark": "\ufeff",
    "word joiner": "\u2060",
    "invisible times": "\u2062",
    "soft hyphen": "\u00ad",
    "combining grapheme joiner": "\u034f",
    "mark of writing to the right": "\u200f",
    "embedding of writing to the right": "\u202b\u202c",
    "isolate": "\u2066\u2069",
    "Arabic letter mark": "\u061c",
    "Mongolian vowel separator": "\u180e",
    "Hangul filler": "\u3164",
    "halfwidth Hangul filler": "\uffa0",
    "Khmer inherent vowel": "\u17b4",
    "variation selector": "\ufe0f",
    "empty Braille pattern": "\u2800",
    "interlinear annotation": "\ufff9\ufffa\ufffb",
    "tags": "\U000e0041\U000e007f",
    "musical beam": "\U0001d173",
    "shorthand format": "\U0001bca0",
    "control characters": "\x01\x7f\x9f",
    "escape": "\x1b",
    "between spaces": " \u200b \t\u2060\n",
}
BLANK: Mapping[str, str] = {
    "spaces": "  ",
    "no-break space": "\u00a0",
    "ideographic space": "\u3000",
    "line separator": "\u2028",
    "next line": "\u0085",
    "unit separator": "\x1f",
}
VISIBLE: Mapping[str, str] = {
    "a letter": "x",
    "a letter after a mark": "\ufeffx",
    "an emoji with a selector": "❤\ufe0f",
    "a family": "👨\u200d👩\u200d👧",
    "a flag of tags": "🏴\U000e0067\U000e007f",
    "Persian with a non-joiner": "\u0645\u06cc\u200c\u062e\u0648\u0631\u0645",
    "punctuation": ".",
    "a digit": "5",
    "a currency": "€",
    "the replacement character": "\ufffd",
    "an Arabic number sign": "\u0600",
    "an accent alone": "\u0301",
    "private use": "\ue000",
    "an ideograph past U+FFFF": "\U00020000",
}


def _body(field: str, text: str) -> bytes:
    return json.dumps({field: [text] if field == "texts" else text}).encode()


# The four ways in: /predict, /predict/batch, A/B (its two endpoints), and the rows of files.
WAYS: Mapping[str, Callable[[str], object]] = {
    "predict": lambda text: PredictRequest.parse(_body("text", text)),
    "batch": lambda text: BatchRequest.parse(_body("texts", text)),
    "ab": lambda text: AbRequest.parse(_body("text", text)),
    "ab-compare": lambda text: AbCompareRequest.parse(_body("text", text)),
    "file": checked_text,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("text", INVISIBLE.values(), ids=INVISIBLE)
def test_invisible_text_is_refused(way: Callable[[str], object], text: str) -> None:
    with pytest.raises((InvalidRequest, UnusableRow), match="must not be only invisible char"):
        way(text)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("text", BLANK.values(), ids=BLANK)
def test_blank_text_is_refused(way: Callable[[str], object], text: str) -> None:
    with pytest.raises((InvalidRequest, UnusableRow), match=r"must not be blank|at least 1 char"):
        way(text)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("text", VISIBLE.values(), ids=VISIBLE)
def test_text_with_a_visible_character_is_accepted_as_it_is(
    way: Callable[[str], object], text: str
) -> None:
    way(text)
    assert TypeAdapter(Text).validate_python(text) == text


@given(st.text(min_size=1))
def test_pattern_of_the_document_says_the_same_up_to_u_ffff(text: str) -> None:
    extra = USABLE_PATTERN.json_schema_extra
    assert isinstance(extra, dict)
    try:
        refuse_unusable(text)
        usable = True
    except ValueError:
        usable = False
    if usable or all(character <= "\uffff" for character in text):
        assert bool(re.search(str(extra["pattern"]), text)) is usable


def test_every_format_character_is_invisible_but_the_signs_before_numbers() -> None:
    """Those of Unicode's Prepended_Concatenation_Mark, and the joiners of hieroglyphs, show."""
    accepted = []
    for number in range(0x110000):
        if unicodedata.category(chr(number)) in ("Cf", "Cc", "Zs", "Zl", "Zp") and number:
            try:
                refuse_unusable(chr(number))
                accepted.append(chr(number))
            except ValueError:
                pass
    assert {unicodedata.name(character).split()[0] for character in accepted} <= {
        "ARABIC", "SYRIAC", "KAITHI", "EGYPTIAN",
    }  # fmt: skip
