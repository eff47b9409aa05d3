"""The formats of files of rows, and how they are opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from datafiles.chunks import CheckText, Chunk, InvalidInput, Source, checked_text
from datafiles.csv_source import CsvSource
from datafiles.json_source import JsonSource
from datafiles.text_file import TextFile, compression_of
from datafiles.watched import Watch, not_watched

# As Linux on x86 downloads it.
PYARROW_MB = 55
_COMPRESSED = {".gz", ".gzip", ".zst", ".zstd"}


class Format(StrEnum):
    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"

    @classmethod
    def of(cls, path: Path) -> Format:
        """The format that the ending of the name says.

        Raises:
            InvalidInput: it says none.
        """
        suffixes = [suffix.lower() for suffix in path.suffixes]
        while len(suffixes) > 1 and suffixes[-1] in _COMPRESSED:
            suffixes.pop()
        try:
            return _ENDINGS[suffixes[-1]]
        except (KeyError, IndexError):
            endings = ".csv, .tsv, .jsonl or .parquet"
            raise InvalidInput(f"its name must end in {endings}", "--from") from None

    @classmethod
    def of_output(cls, path: Path) -> Format:
        """The format that a new file gets.

        Raises:
            InvalidInput: the ending of its name says none.
        """
        ending = path.suffix.lower()
        # A document of JSON would have to be an array.
        if ending not in _ENDINGS or ending == ".json":
            raise InvalidInput(f"{path} must end in .csv, .tsv, .jsonl or .parquet", "--to")
        return _ENDINGS[ending]


_ENDINGS = {
    ".csv": Format.csv,
    ".tsv": Format.csv,
    ".jsonl": Format.jsonl,
    ".ndjson": Format.jsonl,
    ".json": Format.jsonl,
    ".parquet": Format.parquet,
    ".pq": Format.parquet,
}


@dataclass(frozen=True, slots=True)
class Input:
    """A file of rows, and how to read it; None is found in the file.

    `is_strange`: it is a stranger's, and must not take more memory than files have to.
    `is_guarded`: it may not end this process either. `watch` is called while it is read.
    """

    path: Path
    format: Format
    encoding: str | None = None
    delimiter: str | None = None
    is_strange: bool = False
    is_guarded: bool = False
    watch: Watch = not_watched


def needs_pyarrow(source: Input) -> bool:
    """Whether pyarrow, which is installed when it is first needed, reads this file."""
    return source.format is Format.parquet or compression_of(source.path) == "zstd"


def first_column(chunk: Chunk) -> list[object]:
    """The values of the first column that a source repeats, for the usable rows."""
    columns: Any = chunk.columns
    if isinstance(columns, list):
        return [row[0] for row in columns]
    # Imported here because it needs pyarrow, which has read the file.
    from datafiles.readable_times import readable

    values: list[object] = readable(columns).column(0).to_pylist()
    return values


def open_source(
    source: Input,
    column: str,
    keep: Sequence[str] | None,
    added: Sequence[str] = (),
    check: CheckText = checked_text,
    *,
    as_lines: bool = False,
) -> Source:
    """Open a file of rows with texts in `column`, to repeat the columns `keep`, or all.

    Rows of JSON lines that have columns `added` already are rejected; `as_lines` repeats them as
    JSON objects.

    Raises:
        InvalidInput: the file cannot be read, or lacks a column.
    """
    if source.format is not Format.csv and source.delimiter is not None:
        raise InvalidInput(f"{source.format} has no delimiter")
    if source.format is Format.parquet:
        if source.encoding is not None:
            raise InvalidInput("parquet has no encoding")
        if compression := compression_of(source.path):
            raise InvalidInput(f"it is compressed with {compression}; decompress it first")
        # Imported here because only this needs pyarrow, which a command may have to install.
        from datafiles.parquet_source import ParquetSource

        return ParquetSource(
            source.path,
            column,
            keep,
            check,
            is_bounded=source.is_strange,
            is_piloted=source.is_guarded,
            watch=source.watch,
        )
    file = TextFile(
        source.path,
        source.encoding,
        always_utf=source.format is Format.jsonl,
        watch=source.watch,
    )
    if source.format is Format.csv:
        return CsvSource(file, column, keep, source.delimiter, check)
    return JsonSource(file, column, keep, added, check, as_lines=as_lines)
