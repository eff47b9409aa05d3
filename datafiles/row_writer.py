"""Writes rows of strings to a CSV, JSON lines or Parquet file, whole or not at all."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

import orjson

from core.private_files import open_new
from datafiles.formats import Format

Row = Sequence[str | None]
# The size of a row group of Parquet, which is in memory while it is written.
_GROUP_ROWS = 8_192
_GROUP_CHARACTERS = 4 << 20


def write_rows(path: Path, format_: Format, names: Sequence[str], rows: Iterable[Row]) -> int:
    """Write the rows; returns their number. An existing file is replaced once all are written.

    Only its owner may read it: the rows may have texts of clients. None is an empty field of CSV,
    and null in the others.

    Raises:
        OSError: the file cannot be written.
    """
    write = {Format.csv: _write_csv, Format.jsonl: _write_json, Format.parquet: _write_parquet}
    # Two processes may write the same file, and have the same id in two containers.
    partial = path.with_name(f".{path.name}.{token_hex(8)}.partial")
    try:
        with open_new(partial) as file:
            written = write[format_](file, names, rows, "\t" if path.suffix == ".tsv" else ",")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return written


def _write_csv(file: BinaryIO, names: Sequence[str], rows: Iterable[Row], delimiter: str) -> int:
    written = 0
    # CR LF at the end of a row makes the writer quote a lone CR in a field (scoring/outputs.py).
    with _text(file) as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(names)
        for row in rows:
            writer.writerow(["" if value is None else value for value in row])
            written += 1
    return written


def _write_json(file: BinaryIO, names: Sequence[str], rows: Iterable[Row], _: str) -> int:
    written = 0
    for row in rows:
        file.write(orjson.dumps(dict(zip(names, row, strict=True))) + b"\n")
        written += 1
    return written


def _write_parquet(file: BinaryIO, names: Sequence[str], rows: Iterable[Row], _: str) -> int:
    # Imported here because only this needs pyarrow, which a command may have to install.
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.string()) for name in names])
    written = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in _groups(rows):
            columns = [pa.array(column, pa.string()) for column in zip(*group, strict=True)]
            writer.write_table(pa.table(columns, schema))
            written += len(group)
    return written


def _groups(rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
    group: list[Row] = []
    characters = 0
    for row in rows:
        group.append(row)
        characters += sum(len(value) for value in row if value is not None)
        if len(group) == _GROUP_ROWS or characters >= _GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


@contextmanager
def _text(file: BinaryIO) -> Iterator[io.TextIOWrapper]:
    stream = io.TextIOWrapper(file, "utf-8", newline="")
    try:
        yield stream
        stream.flush()
    finally:
        stream.detach()
