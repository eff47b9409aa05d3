"""A file of texts to judge engines by is used whole, or refused with what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.types import SENTIMENTS
from models.export.gate import MIN_TEXTS, LabelledText
from models.texts import CALIBRATION_TEXTS, InvalidTexts, read_texts

ENOUGH = MIN_TEXTS + CALIBRATION_TEXTS
LABELS = [SENTIMENTS[number % 3] for number in range(ENOUGH)]
LINES = [json.dumps({"text": f"Text {n}.", "label": LABELS[n]}) for n in range(ENOUGH)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "texts.jsonl"


def test_the_first_texts_calibrate_and_the_others_judge(path: Path) -> None:
    path.write_text("\n".join(LINES), encoding="utf-8")
    texts = read_texts(path)
    assert texts.calibration == [f"Text {n}." for n in range(CALIBRATION_TEXTS)]
    assert texts.gate == [
        LabelledText(f"Text {n}.", LABELS[n]) for n in range(CALIBRATION_TEXTS, ENOUGH)
    ]
    assert set(texts.calibration).isdisjoint(labelled.text for labelled in texts.gate)


def test_blank_lines_other_fields_and_any_language_are_no_matter(path: Path) -> None:
    odd = {"label": "neutral", "source": "me", "text": "Größe 很好 👍\nzweite Zeile"}
    last = json.dumps(odd, ensure_ascii=False)
    path.write_text("\n\n".join([*LINES[1:], last]) + "\n \n", encoding="utf-8")
    assert read_texts(path).gate[-1] == LabelledText("Größe 很好 👍\nzweite Zeile", "neutral")


KNOWN = "label: Input should be 'negative', 'neutral' or 'positive'"
BAD_LINES = {
    "no JSON": (b"Text, positive", "Invalid JSON"),
    "cut off": (b'{"text": "Text", "label": "pos', "Invalid JSON"),
    "nested without end": (b"[" * 100_000, "Invalid JSON"),
    "no object": (b'["Text", "positive"]', "should be an object"),
    "no label": (b'{"text": "Text"}', "label: Field required"),
    "no text": (b'{"label": "positive"}', "text: Field required"),
    "unknown label": (b'{"text": "Text", "label": "LABEL_1"}', KNOWN),
    "label as a number": (b'{"text": "Text", "label": 1}', KNOWN),
    "empty text": (b'{"text": "", "label": "positive"}', "text: String should have at least 1"),
    "blank text": (b'{"text": " ", "label": "positive"}', "text: String should have at least 1"),
    "text as a number": (b'{"text": 5, "label": "positive"}', "text: Input should be a valid"),
}


@pytest.mark.parametrize(("line", "says"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_among_good_ones_is_told(path: Path, line: bytes, says: str) -> None:
    good = [one.encode() for one in LINES]
    path.write_bytes(b"\n".join([*good[:700], line, *good[700:]]))
    with pytest.raises(InvalidTexts) as caught:
        read_texts(path)
    assert str(caught.value).startswith(f"{path} cannot be used: line 701: ")
    assert says in str(caught.value)


def test_what_is_no_utf_8_is_told(path: Path) -> None:
    path.write_bytes(b'{"text": "\xff", "label": "positive"}')
    with pytest.raises(InvalidTexts, match="can't decode byte 0xff"):
        read_texts(path)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
def test_a_text_may_hold_what_separates_lines_elsewhere(path: Path, separator: str) -> None:
    odd = json.dumps({"text": f"a{separator}b", "label": "neutral"}, ensure_ascii=False)
    path.write_text("\ufeff" + "\n".join([*LINES, odd]), encoding="utf-8")
    assert read_texts(path).gate[-1].text == f"a{separator}b"


def test_a_text_that_is_there_twice_counts_once(path: Path) -> None:
    path.write_text("\n".join([*LINES, LINES[0]]), encoding="utf-8")
    texts = read_texts(path)
    assert len(texts.gate) == MIN_TEXTS
    assert set(texts.calibration).isdisjoint(labelled.text for labelled in texts.gate)


@pytest.mark.parametrize("count", [0, 1, ENOUGH - 1])
def test_too_few_texts_are_told_with_how_many_it_needs(path: Path, count: int) -> None:
    path.write_text("\n".join(LINES[:count]), encoding="utf-8")
    with pytest.raises(InvalidTexts) as caught:
        read_texts(path)
    assert str(caught.value) == f"{path} has {count:,} different texts; it needs 2,300"


def test_a_missing_file_and_a_folder_are_told(path: Path) -> None:
    with pytest.raises(InvalidTexts, match=r"texts\.jsonl cannot be used: .*No such file"):
        read_texts(path)
    with pytest.raises(InvalidTexts, match=r"cannot be used: .*Is a directory"):
        read_texts(path.parent)
