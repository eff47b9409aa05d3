"""JSON lines keep every value to the last digit; files that are none are refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from datafiles.chunks import InvalidInput, Position
from datafiles.formats import Format, Input, open_source
from tests.unit.scoring.scorers import score

# As JSON may write them: Python's numbers would change each.
NUMBERS = [
    "9223372036854775808",
    "18446744073709551616",
    "-9223372036854775809",
    "123456789012345678901234567890",
    "0.1000000000000000055511151231257827",
    "1.10",
    "-0",
    "-0.0",
    "1E5",
    "1e-7",
    "1E+400",
    "1.0",
    "100000000000000000000.5",
    '[1.10,{"deep":-0}]',
]


@pytest.mark.parametrize("number", NUMBERS)
def test_number_is_the_same_in_every_output(tmp_path: Path, number: str) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(f'{{"text": "good", "n": {number}, "m": 1}}\n')
    score(source, tmp_path / "out.csv", keep=["n"])
    csv_cell = f'"{number}"'.replace('{"deep"', '{""deep""') if "," in number else number
    assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith(f"{csv_cell},negative,")
    score(source, tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").column("n").to_pylist() == [number]
    score(source, tmp_path / "out.jsonl", keep=["n", "text"])
    assert (tmp_path / "out.jsonl").read_text().startswith(f'{{"n":{number},"text":"good","sen')
    score(source, tmp_path / "all.jsonl")
    assert (
        (tmp_path / "all.jsonl")
        .read_text()
        .startswith(f'{{"text": "good", "n": {number}, "m": 1,"sentiment_v1":')
    )


@pytest.mark.parametrize(
    ("content", "texts", "rejected"),
    [
        (b'{"text":"a"}\r\n{"text":"b"}\r\n', ["a", "b"], []),
        (b'{"text":"a"}\r{"text":"b"}\r', ["a", "b"], []),
        (b'\xef\xbb\xbf{"text":"a"}', ["a"], []),
        ('{"text":"ä"}\n{"text":"👍"}\n'.encode("utf-16"), ["ä", "👍"], []),
        ('{"text":"ä"}\n'.encode("utf-16-be"), ["ä"], []),
        ('{"text":"a\u2028b\u0085c"}\n'.encode(), ["a\u2028b\x85c"], []),
        (b'{"Text":"a"}\n{"TEXT ":"b"}\n', ["a", "b"], []),
        (b'{"text":"a","text":"b"}\n', ["b"], []),
        (b'{"text":"a","Text":"b"}\n', ["a"], []),
        (b'{"x":1}\n{"text":"a"}\n', ["a"], [(1, "the member text is missing")]),
        (b'{"text":null}\n{"text":"a"}\n', ["a"], [(1, "text")]),
        (b'{"text":"\\ud83d\\ude00"}\n', ["😀"], []),
        (b'{"text":"\\ud83d"}\n{"text":"a"}\n', ["a"], [(1, "invalid JSON")]),
        (
            b'{"text":"a","n":NaN}\n{"text":"a","n":01}\n{"text":"b"}\n',
            ["b"],
            [(1, "invalid JSON"), (2, "invalid JSON")],
        ),
        (b'{"text":"a","n":"\xff"}\n{"text":"b"}\n', ["b"], [(1, "not in UTF-8")]),
        (b'{"text":"a"} {"text":"b"}\n{"text":"c"}\n', ["c"], [(1, "invalid JSON")]),
        (b'{"text":"a"},\n{"text":"b"}\n', ["b"], [(1, "invalid JSON")]),
        (
            # Deeper than every Python's limit, which grew in 3.12.
            b'{"text":"a","deep":' + b"[" * 99_000 + b"]" * 99_000 + b'}\n{"text":"b"}\n',
            ["b"],
            [(1, "invalid JSON")],
        ),
    ],
)
def test_json_lines_are_read_right(
    tmp_path: Path, content: bytes, texts: list[str], rejected: list[tuple[int, str]]
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(content)
    [chunk] = open_source(Input(path, Format.jsonl), "text", None, as_lines=True).chunks(
        Position(), None
    )
    assert chunk.texts == texts
    assert [(row.line, row.reason.partition(":")[0]) for row in chunk.rejected] == rejected


@pytest.mark.parametrize(
    "content", [b'[{"text":"a"}]', b'[\n  {"text": "a"}\n]\n', b"\xef\xbb\xbf \n [1]", b"[]"]
)
def test_json_array_is_refused_with_the_way_to_convert_it(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"begins with a JSON array; .*jq -c"):
        score(source, tmp_path / "out.jsonl")


@pytest.mark.parametrize("as_lines", [True, False])
@pytest.mark.parametrize("keep", [None, ["o"]])
@pytest.mark.parametrize(
    "value",
    [
        "1e999999", "-1e999999", '{"a":1e999}', "[1e999]", r'"\ud800"', r'"\udc00\ud800"', r'"\x"',
        "[" * 100_000 + "]" * 100_000, "9" * 5_000, "-", "01", "1.", "NaN", "Infinity",
    ],
)  # fmt: skip
def test_value_that_python_cannot_have_rejects_its_row_alone(
    tmp_path: Path, value: str, keep: list[str] | None, *, as_lines: bool
) -> None:
    file = tmp_path / "in.jsonl"
    rows = [f'{{"text":{value},"o":1}}', '{"text":"good","o":1}']
    for order in (rows, rows[::-1]):
        file.write_text("\n".join(order), encoding="utf-8")
        source = open_source(Input(file, Format.jsonl), "text", keep, as_lines=as_lines)
        [chunk] = source.chunks(Position(), None)
        assert (chunk.texts, len(chunk.rejected)) == (["good"], 1)
