"""`sentiment score` refuses a broken file with one line, before it loads a model."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scripts.cli import app


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """The command sets how its process ends, which here is that of the tests."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# The name of the input, its content, further options, and the sentence.
BROKEN: dict[str, tuple[str, bytes, str, str]] = {
    "a JSON array": ("in.jsonl", b'[{"text": "a"}]', "", "it begins with a JSON array"),
    "cp1252": ("in.csv", b"text\nsch\xf6n\n", "", "(option: --encoding)"),
    "no encoding": (
        "in.csv",
        b"text\na\n",
        "--encoding rot13",
        "no encoding of text is named rot13",
    ),
    "a long delimiter": ("in.csv", b"text\na\n", "--delimiter ::", "must be a character, or tab"),
    "a delimiter for JSON": ("in.jsonl", b"{}", "--delimiter ;", "jsonl has no delimiter"),
    "a spreadsheet": ("in.csv", b"PK\x03\x04", "", "it is a ZIP archive or a spreadsheet"),
    "a spreadsheet by name": ("in.xlsx", b"PK\x03\x04", "", "must end in .csv, .jsonl or .parquet"),
    "no column": ("in.csv", b"a;b\n1;2\n", "", "the columns are: a, b (option: --column)"),
    "no column to write": (
        "in.csv",
        b"text;b\n1;2\n",
        "--id c",
        "no column c; the columns are: text, b",
    ),
    "a column twice": (
        "in.csv",
        b"text,a,a\n1,2,3\n",
        "",
        "rename them, or choose columns (option: --id)",
    ),
    "damaged gzip": ("in.csv.gz", b"\x1f\x8b\x08\0\0\0", "", "its gzip data is damaged"),
    "damaged zstd": ("in.csv.zst", b"\x28\xb5\x2f\xfd\0\0\0\0", "", "its zstd data is damaged"),
    "no Parquet": ("in.parquet", b"text\na\n", "", "not a Parquet file"),
    "Parquet called CSV": ("in.csv", b"PAR1....PAR1", "", "it is a Parquet file"),
    "JSON lines called CSV": (
        "in.csv",
        b'{"text":"a"}',
        "",
        "it has JSON lines, not CSV (option: --from jsonl)",
    ),
    "CSV called Parquet": ("in.csv", b"text\na\n", "--from parquet", "not a Parquet file"),
    "nothing": ("in.csv", b"", "", "must begin with the names of its columns"),
    "results already": (
        "in.csv",
        b"text,truncated\na,b\n",
        "",
        "already has result columns: truncated (option: --id)",
    ),
}


@pytest.mark.parametrize(("name", "content", "options", "sentence"), BROKEN.values(), ids=BROKEN)
def test_broken_file_is_refused_with_one_line(
    tmp_path: Path, name: str, content: bytes, options: str, sentence: str
) -> None:
    source, out = tmp_path / name, tmp_path / "out.csv"
    source.write_bytes(content)
    done = CliRunner().invoke(app, ["score", str(source), str(out), *options.split()])
    assert done.exit_code == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("not scored: ")
    assert sentence in line
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_output_that_no_name_gives_a_format_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_bytes(b"text\na\n")
    done = CliRunner().invoke(app, ["score", str(source), str(tmp_path / "out.xlsx")])
    assert done.exit_code == 1
    assert "out.xlsx must end in .csv, .jsonl or .parquet (option: --to)" in done.stderr


@pytest.mark.parametrize(("source", "out"), [("none.csv", "out.csv"), (".", "out.csv"), ("-", ".")])
def test_missing_file_and_a_folder_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["score", source, out, "--from", "csv"])
    assert done.exit_code == 2
    assert "there is no file" in done.stderr or "is a folder" in done.stderr


def test_stdin_needs_a_format() -> None:
    done = CliRunner().invoke(app, ["score", "-", "-"], input=b"text\na\n")
    assert done.exit_code == 1
    assert "must end in .csv, .jsonl or .parquet (option: --from)" in done.stderr
