"""`sentiment score` refuses a broken file with one line, before it loads a model."""

from __future__ import annotations

import gzip
import io
import os
import signal
import tarfile
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


def tar_of(content: bytes) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        member = tarfile.TarInfo("a,text")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


# The name of the input, its content, further options, and the sentence.
BROKEN: dict[str, tuple[str, bytes, str, str]] = {
    "a JSON array": ("in.jsonl", b'[{"text": "a"}]', "", "it begins with a JSON array"),
    "cp1252": ("in.csv", b"text\nsch\xf6n\n", "", "(option: --encoding)"),
    "no encoding": (
        "in.csv",
        b"text\na\n",
        "--encoding rot13",
        "no encoding that is read is named rot13",
    ),
    "a long delimiter": ("in.csv", b"text\na\n", "--delimiter ::", "must be a character, or tab"),
    "a delimiter for JSON": ("in.jsonl", b"{}", "--delimiter ;", "jsonl has no delimiter"),
    "a spreadsheet": ("in.csv", b"PK\x03\x04", "", "it is a ZIP archive or a spreadsheet"),
    "a spreadsheet by name": (
        "in.xlsx",
        b"PK\x03\x04",
        "",
        "its name must end in .csv, .tsv, .jsonl or .parquet",
    ),
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
    "an encoding for Parquet": (
        "in.parquet",
        b"PAR1",
        "--encoding cp1252",
        "parquet has no encoding",
    ),
    "Parquet in gzip": (
        "in.parquet.gz",
        gzip.compress(b"PAR1"),
        "",
        "it is compressed with gzip; decompress it first",
    ),
    "a Parquet file in gzip called CSV": (
        "in.csv.gz",
        gzip.compress(b"PAR1"),
        "",
        "it is a Parquet file, compressed with gzip",
    ),
    "gzip in gzip": (
        "in.csv.gz",
        gzip.compress(gzip.compress(b"text\na\n")),
        "",
        "it is compressed with gzip, compressed with gzip",
    ),
    "a tar archive in gzip": ("in.csv.gz", tar_of(b"id,text\n1,a\n"), "", "it is a tar archive"),
    "a tar archive of JSON lines": (
        "in.jsonl.gz",
        tar_of(b'{"text":"a"}\n'),
        "",
        "it is a tar archive",
    ),
    "UTF-32": ("in.csv", "text\n".encode("utf-32"), "", "convert it to UTF-8"),
    "no name of a column": ("in.csv", b",,\n1,2,3\n", "", "no column text; no column has a name"),
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
    assert "out.xlsx must end in .csv, .tsv, .jsonl or .parquet (option: --to)" in done.stderr


@pytest.mark.parametrize(
    ("source", "out", "sentence"),
    [
        ("none.csv", "out.csv", "there is no file none.csv"),
        ("none/in.csv", "out.csv", "there is no file none/in.csv"),
        (".", "out.csv", ". is a folder; score the files in it one by one"),
        ("data.parquet", "out.csv", "data.parquet is a folder; score the files in it one by one"),
        ("-", ".", ". is a folder"),
        ("-", "none/out.csv", "there is no folder none"),
        ("-", "in.csv/out.csv", "there is no folder in.csv"),
        ("in.csv", "/dev/null", "/dev/null is no regular file; - is stdout"),
        ("in.csv", "/dev/zero", "/dev/zero is no regular file; - is stdout"),
        ("in.csv", "fifo", "fifo is no regular file; - is stdout"),
    ],
)
def test_paths_that_cannot_be_used_are_usage_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, out: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "data.parquet").mkdir()
    (tmp_path / "in.csv").write_bytes(b"text\na\n")
    os.mkfifo("fifo")
    # --restart would replace what has the name of OUT.
    done = CliRunner().invoke(app, ["score", source, out, "--from", "csv", "--restart"])
    assert done.exit_code == 2
    assert f"{sentence} " in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.parquet", "fifo", "in.csv"]


def test_stdin_needs_a_format() -> None:
    done = CliRunner().invoke(app, ["score", "-", "-"], input=b"text\na\n")
    assert done.exit_code == 1
    assert "must end in .csv, .tsv, .jsonl or .parquet (option: --from)" in done.stderr
