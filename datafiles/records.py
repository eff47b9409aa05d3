"""The common part of the sources of text files: records are read and cut into chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from datafiles.chunks import (
    CHUNK_BYTES,
    CHUNK_ROWS,
    Chunk,
    Columns,
    Position,
    Rejection,
    UnusableRow,
)
from datafiles.lines import Lines


class Record(NamedTuple):
    """A usable row: its text, and its values or its JSON."""

    text: str
    row: Mapping[str, object] | bytes


class RecordSource(ABC):
    """A text file of records; a subclass parses them. `schema` has the columns to repeat."""

    schema: pa.Schema

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes = path.stat().st_size

    def fraction(self, position: Position) -> float:
        return position.offset / self._bytes if self._bytes else 1.0

    def chunks(self, start: Position, limit: int | None) -> Iterator[Chunk]:
        with self._path.open("rb") as file:
            lines = Lines(file, start)
            rows, chunk_start = start.rows, start.offset
            usable: list[Record] = []
            rejected: list[Rejection] = []
            left = None if limit is None else max(0, limit - rows)
            for record in islice(self._records(lines), left):
                rows += 1
                if isinstance(record, Rejection):
                    rejected.append(record)
                else:
                    usable.append(record)
                is_full = len(usable) + len(rejected) == CHUNK_ROWS
                if is_full or lines.offset - chunk_start > CHUNK_BYTES:
                    yield self._chunk(usable, rejected, Position(lines.offset, lines.number, rows))
                    usable, rejected, chunk_start = [], [], lines.offset
            if usable or rejected:
                yield self._chunk(usable, rejected, Position(lines.offset, lines.number, rows))

    def _chunk(self, usable: list[Record], rejected: list[Rejection], end: Position) -> Chunk:
        columns = self._columns([record.row for record in usable])
        return Chunk([record.text for record in usable], columns, rejected, end)

    def _records(self, lines: Lines) -> Iterator[Record | Rejection]:
        read = self._reader(lines)
        while True:
            lines.begin_record()
            try:
                if (record := read()) is not None:
                    yield record
            except StopIteration:
                return
            except UnusableRow as error:
                yield Rejection(lines.first, str(error), lines.raw)

    @abstractmethod
    def _reader(self, lines: Lines) -> Callable[[], Record | None]:
        """Make the function that reads the next record, and returns None for a blank line.

        It raises StopIteration at the end, and can be called again after it raised UnusableRow.
        """

    def _columns(self, rows: Sequence[Any]) -> Columns:
        """A table of strings: CSV has no other values, and JSON's become JSON."""
        columns = [[_string(row.get(name)) for row in rows] for name in self.schema.names]
        return pa.table(columns, self.schema)


def strings_schema(names: Sequence[str]) -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in names])


def _string(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()
