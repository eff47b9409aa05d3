"""A terminal shows texts of others, and does not obey them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from core.printable import printable, printable_values


@given(st.text())
def test_shown_text_is_printable_and_a_printable_one_stays(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)
    if text.isprintable():
        assert printable(text) == text


def test_names_and_texts_at_every_depth_are_shown() -> None:
    document = {"a\n": ["\x1b", {"b": "\u202e"}, 1, None, True], "c": 2.5}
    assert printable_values(document) == {
        r"a\n": [r"\x1b", {"b": r"\u202e"}, 1, None, True], "c": 2.5,
    }  # fmt: skip
