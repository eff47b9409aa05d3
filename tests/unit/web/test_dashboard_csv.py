"""The dashboard's CSV reader gives the answers of the one that scores files."""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import playwright
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datafiles.chunks import Position
from datafiles.formats import Format, Input, open_source
from tests.unit.datafiles.csv_files import CSV_FILES, CsvFile, Refused, Rows, read, texts
from web.dashboard.page import FOLDER

# Playwright brings a Node of its own, so the tests need none on the machine.
NODE = Path(playwright.__file__).parent / "driver" / "node"
READER = Path(__file__).parent / "csv_reader.mjs"


def documents_read_by_the_dashboard(files: Sequence[CsvFile]) -> list[dict[str, Any]]:
    documents = [
        {
            "content": base64.b64encode(file.content).decode(),
            "column": file.column,
            "encoding": file.encoding or "",
            "delimiter": file.delimiter or "",
        }
        for file in files
    ]
    done = subprocess.run(
        [NODE, READER, (FOLDER / "csv_rows.js").as_uri()],
        input=json.dumps(documents),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def read_by_the_dashboard(files: Sequence[CsvFile]) -> list[Rows | Refused]:
    return [_answer(answer) for answer in documents_read_by_the_dashboard(files)]


def _answer(answer: dict[str, Any]) -> Rows | Refused:
    if "refused" in answer:
        return Refused(answer["refused"])
    rejected = tuple((line, reason.partition(":")[0]) for line, reason, _ in answer["rejected"])
    return Rows(answer["names"], answer["rows"], rejected, answer["column"])


@pytest.fixture(scope="module")
def answers() -> dict[str, Rows | Refused]:
    return dict(zip(CSV_FILES, read_by_the_dashboard(list(CSV_FILES.values())), strict=True))


@pytest.mark.parametrize("name", CSV_FILES)
def test_csv_file_is_read_right_or_refused(answers: dict[str, Rows | Refused], name: str) -> None:
    right, answer = CSV_FILES[name].right, answers[name]
    if isinstance(right, Refused):
        assert isinstance(answer, Refused)
        assert right.sentence in answer.sentence
    else:
        assert answer == right


@pytest.mark.parametrize(
    ("content", "raw"),
    [
        (b"id,text\n1,a,b\n2,c\n", "1,a,b"),
        (b"id,text\n1\r\n2,c\n", "1"),
        (b'id,text\n1,"a\nb",c\n2,c\n', '1,"a\nb",c'),
        (b'id,text\n1,"open\n2,c\n', '1,"open'),
        (b'id,text\n1,"a" b\n2,c\n', '1,"a" b'),
        (b"id,text\n1,\xe9\n\xc3\xa4,c\n", "1,\ufffd"),
    ],
)
def test_rejected_row_is_shown_as_it_begins(content: bytes, raw: str, tmp_path: Path) -> None:
    file = CsvFile(content, texts())
    path = tmp_path / "in.csv"
    path.write_bytes(content)
    chunks = open_source(Input(path, Format.csv), "text", None).chunks(Position(), None)
    assert [row.raw for chunk in chunks for row in chunk.rejected] == [raw]
    (answer,) = documents_read_by_the_dashboard([file])
    assert [shown for _, _, shown in answer["rejected"]] == [raw]


PIECES = [
    b'"',
    b'""',
    b",",
    b";",
    b"\t",
    b"|",
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\r\n",
    b"a",
    b"text",
    b" text ",
    "é".encode(),
    "👍".encode(),
    b"\xe9",
    b"\x81",
    b"\xff",
    b"\0",
    b"sep=;\n",
    "\ufeff".encode(),
    b"\x85",
    "\u2028".encode(),
    b"=1",
    b"{",
    b'"text",b\n',
    b', "',
    b"; ",
]
HEADERS = [
    b"text\n",
    b"id,text\r\n",
    b"text;id\r",
    b"sep=|\nid|Text\n",
    b'"text"\t"a b"\n',
    b"text,text\n",
    b"",
    b'a,"text\n',
    b'id, text\n1, "a"\n',
    b'id; "text"\n',
]


def encoded(content: bytes, encoding: str) -> bytes:
    return content if encoding == "bytes" else content.decode("latin-1").encode(encoding)


CONTENTS = st.builds(
    lambda header, pieces, encoding: encoded(header + b"".join(pieces), encoding),
    st.sampled_from(HEADERS),
    st.lists(st.sampled_from(PIECES), max_size=30),
    st.sampled_from(["bytes", "bytes", "utf-16", "utf-16-be"]),
)
FILES = st.builds(
    CsvFile,
    CONTENTS,
    st.just(texts()),
    encoding=st.sampled_from([None, None, None, "utf-8", "cp1252", "utf-16-le"]),
    delimiter=st.sampled_from([None, None, ",", "tab"]),
)


@settings(max_examples=10, deadline=None)
@given(files=st.lists(FILES, min_size=1, max_size=15))
def test_any_file_is_read_alike_by_the_dashboard_and_by_scoring(files: list[CsvFile]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        right = [read(file, Path(folder) / "in.csv") for file in files]
    for file, expected, answer in zip(files, right, read_by_the_dashboard(files), strict=True):
        assert answer == expected, file
