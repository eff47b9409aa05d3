"""A file of texts to judge engines by is used whole, or refused with what is wrong with it."""

from __future__ import annotations

import gzip
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.types import SENTIMENTS
from models.export.gate import MIN_TEXTS, LabelledText
from models.texts import CALIBRATION_TEXTS, InvalidTexts, read_labelled, read_texts

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


KNOWN = "is not known; known are negative, neg, neutral, neu, positive, pos"
BAD_LINES = {
    "no JSON": (b"Text, positive", "invalid JSON"),
    "cut off": (b'{"text": "Text", "label": "pos', "invalid JSON"),
    "nested without end": (b"[" * 100_000, "not a JSON object"),
    "no object": (b'["Text", "positive"]', "not a JSON object"),
    "no label": (b'{"text": "Text"}', "the member label is missing"),
    "no text": (b'{"label": "positive"}', "the member text is missing"),
    "unknown label": (b'{"text": "Text", "label": "LABEL_1"}', KNOWN),
    "label as a number": (b'{"text": "Text", "label": 1}', KNOWN),
    "empty text": (b'{"text": "", "label": "positive"}', "text: it is blank"),
    "a zero-width space": (
        '{"text": "\u200b \u200d", "label": "positive"}'.encode(),
        "text: must not be only invisible characters",
    ),
    "a byte order mark and a soft hyphen": (
        b'{"text": "\\ufeff\\u00ad", "label": "positive"}',
        "text: must not be only invisible characters",
    ),
    "control characters": (
        b'{"text": "\\u0001\\u007f", "label": "positive"}',
        "text: must not be only invisible characters",
    ),
    "NUL": (
        b'{"text": "a\\u0000b", "label": "positive"}',
        "text: must not contain the NUL character",
    ),
    "blank text": (b'{"text": " ", "label": "positive"}', "text: it is blank"),
    "text as a number": (b'{"text": 5, "label": "positive"}', "text: it is no string"),
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
    with pytest.raises(InvalidTexts, match="line 1: not in UTF-8"):
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


# As people and exports write them.
WRITTEN = [" Positive", "NEGATIVE ", "neu", "pos", "Neg", "neutral"]
READ = ["positive", "negative", "neutral", "positive", "negative", "neutral"]
ROWS = [(f"Text {n}, größer.", WRITTEN[n % 6]) for n in range(ENOUGH)]


def delimited(sign: str, text: str = "text", label: str = "label") -> str:
    return f"id{sign}{label}{sign}{text}\n" + "".join(f'1{sign}{b}{sign}"{a}"\n' for a, b in ROWS)


def parquet(path: Path, type_: pa.DataType) -> None:
    labels = pa.array([label for _, label in ROWS])
    labels = labels.dictionary_encode() if pa.types.is_dictionary(type_) else labels.cast(type_)
    pq.write_table(pa.table({"text": [text for text, _ in ROWS], "label": labels}), path)


JSON_LINES = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS)
WRITERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "JSON lines": (".jsonl", lambda path: path.write_text(JSON_LINES, encoding="utf-8")),
    "no ending": ("", lambda path: path.write_text(JSON_LINES, encoding="utf-8")),
    "JSON lines in UTF-16": (".json", lambda path: path.write_text(JSON_LINES, encoding="utf-16")),
    "CSV": (".csv", lambda path: path.write_text(delimited(","), encoding="utf-8")),
    "CSV of Excel": (".csv", lambda path: path.write_text(delimited(";"), encoding="utf-8-sig")),
    "CSV with other case": (
        ".csv", lambda path: path.write_text(delimited(",", "Text", " LABEL"), encoding="utf-8"),
    ),
    "tabs": (".tsv", lambda path: path.write_text(delimited("\t"), encoding="utf-16")),
    "gzip": (".csv.gz", lambda path: path.write_bytes(gzip.compress(delimited(",").encode()))),
    "Parquet": (".parquet", lambda path: parquet(path, pa.string())),
    "Parquet views": (".parquet", lambda path: parquet(path, pa.string_view())),
    "Parquet bytes": (".parquet", lambda path: parquet(path, pa.binary())),
    "Parquet views of bytes": (".parquet", lambda path: parquet(path, pa.binary_view())),
    "Parquet dictionary": (
        ".parquet", lambda path: parquet(path, pa.dictionary(pa.int32(), pa.string())),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("ending", "write"), WRITERS.values(), ids=WRITERS)
def test_labels_are_read_alike_from_every_format(
    tmp_path: Path, ending: str, write: Callable[[Path], object]
) -> None:
    path = tmp_path / f"held-out{ending}"
    write(path)
    texts = read_texts(path)
    assert [labelled.label for labelled in texts.gate[:6]] == READ
    assert texts.gate[0].text == "Text 300, größer."


@pytest.mark.parametrize("label", ["1", "LABEL_1", "", "positive!"])
@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet"])
def test_unknown_label_is_refused_alike_from_every_format(
    tmp_path: Path, label: str, format_: str
) -> None:
    path = tmp_path / f"held-out.{format_}"
    if format_ == "csv":
        path.write_text(f"text,label\na,{label}\n", encoding="utf-8")
    elif format_ == "jsonl":
        row = {"text": "a", "label": int(label) if label == "1" else label}
        path.write_text(json.dumps(row), encoding="utf-8")
    else:
        labels = pa.array([1]) if label == "1" else pa.array([label])
        pq.write_table(pa.table({"text": ["a"], "label": labels}), path)
    with pytest.raises(InvalidTexts, match=rf"line \d: label: {label} is not known; known are neg"):
        read_texts(path)


def test_text_longer_than_the_service_takes_is_used(path: Path) -> None:
    long = json.dumps({"text": "a" * 9_000, "label": "neutral"})
    path.write_text("\n".join([*LINES, long]), encoding="utf-8")
    assert read_texts(path).gate[-1].text == "a" * 9_000


def test_cp1252_is_refused_with_the_way_to_say_so(tmp_path: Path) -> None:
    path = tmp_path / "held-out.csv"
    path.write_bytes("text,label\nschön,pos\n".encode("cp1252"))
    with pytest.raises(InvalidTexts, match="not in UTF-8: line 2 has the byte 0xF6"):
        read_texts(path)


@pytest.mark.parametrize(
    ("encoding", "delimiter"),
    [
        ("cp1252", None),
        ("latin-1", ";"),
        ("utf-16-le", None),
        ("cp850", "^"),
        (None, "^"),
        (None, "tab"),
        ("utf-8", ","),
    ],
)
def test_named_encoding_and_delimiter_read_held_out_texts(
    tmp_path: Path, encoding: str | None, delimiter: str | None
) -> None:
    sign = {None: ",", "tab": "\t"}.get(delimiter, delimiter) or ","
    path = tmp_path / "held-out.csv"
    path.write_bytes(delimited(sign).encode(encoding or "utf-8"))
    texts = read_labelled(path, ENOUGH, encoding=encoding, delimiter=delimiter)
    assert texts[0] == LabelledText("Text 0, größer.", "positive")


@pytest.mark.parametrize(
    ("name", "content", "named", "sentence"),
    [
        ("a.csv", b"text,label\nsch\xf6n,pos\n", {}, r"0xF6.* \(option: --encoding\)$"),
        ("a.csv", b"text,label\na,pos\n", {"encoding": "klingon"}, r"\(option: --encoding\)$"),
        ("a.csv", b"text,label\na,pos\n", {"delimiter": "::"}, r"\(option: --delimiter\)$"),
        ("a.csv", b"text^label\na^pos\n", {}, r"the columns are: text\^label$"),
        ("a.jsonl", b"{}", {"delimiter": ";"}, "jsonl has no delimiter$"),
        ("a.parquet", b"PAR1", {"encoding": "cp1252"}, "parquet has no encoding$"),
    ],
)
def test_held_out_file_that_is_read_wrong_names_the_option(
    tmp_path: Path, name: str, content: bytes, named: dict[str, str], sentence: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidTexts, match=sentence):
        read_labelled(path, 1, encoding=named.get("encoding"), delimiter=named.get("delimiter"))


def test_labelled_texts_of_a_pipe_are_read_from_its_start(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("\n".join(LINES),))
    writer.start()
    texts = read_labelled(pipe, ENOUGH)
    writer.join()
    assert texts[0] == LabelledText("Text 0.", LABELS[0])
    assert len(texts) == ENOUGH


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none.jsonl", "No such file or directory"),
        (".", "Is a directory"),
        ("/dev/zero", "it is a device, and neither a file nor a pipe"),
    ],
)
def test_path_without_a_file_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(InvalidTexts, match=f"cannot be used: {reason}$"):
        read_labelled(tmp_path / name, 1)


def test_option_is_not_named_where_a_command_lacks_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,label\nsch\xf6n,pos\n")
    with pytest.raises(InvalidTexts) as refused:
        read_texts(path)
    assert "(option:" not in str(refused.value)
