"""The common part of the sources of text files: records are read and cut into chunks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import pyarrow as pa

from scoring.chunks import (
    CHUNK_BYTES,
    CHUNK_ROWS,
    Chunk,
    InputColumns,
    Position,
    Rejection,
    UnusableRow,
)
from scoring.lines import Lines

Values = TypeVar("Values")


class Record(NamedTuple, Generic[Values]):
    values: Values
    text: str


class RecordSource(Generic[Values]):
    """A text file of records; a subclass parses a record and finds its text."""

    schema: pa.Schema

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes = path.stat().st_size

    def fraction(self, position: Position) -> float:
        return position.offset / self._bytes if self._bytes else 1.0

    def chunks(self, start: Position, limit: int | None) -> Iterator[Chunk]:
        with self._path.open("rb") as file:
            lines = Lines(file, start)
            records = self._records(lines)
            rows, chunk_start = start.rows, start.offset
            usable: list[Record[Values]] = []
            rejected: list[Rejection] = []

            def chunk() -> Chunk:
                return Chunk(
                    [record.text for record in usable],
                    self._columns([record.values for record in usable]),
                    list(rejected),
                    Position(lines.offset, lines.number, rows),
                )

            while (limit is None or rows < limit) and (record := next(records, None)) is not None:
                rows += 1
                if isinstance(record, Rejection):
                    rejected.append(record)
                else:
                    usable.append(record)
                is_full = len(usable) + len(rejected) == CHUNK_ROWS
                if is_full or lines.offset - chunk_start > CHUNK_BYTES:
                    yield chunk()
                    usable.clear()
                    rejected.clear()
                    chunk_start = lines.offset
            if usable or rejected:
                yield chunk()

    def _records(self, lines: Lines) -> Iterator[Record[Values] | Rejection]:
        reader = self._reader(lines)
        while True:
            lines.begin_record()
            try:
                values = next(reader)
                if values is None:
                    continue
                yield Record(values, self._text(values))
            except StopIteration:
                return
            except UnusableRow as error:
                yield Rejection(lines.first, str(error), lines.raw)

    @abstractmethod
    def _reader(self, lines: Lines) -> Iterator[Values | None]:
        """Read a record with each step, None for a blank line.

        The reader can be used again after it raised UnusableRow.
        """

    @abstractmethod
    def _text(self, values: Values) -> str: ...

    @abstractmethod
    def _columns(self, rows: Sequence[Values]) -> InputColumns: ...


def strings_schema(names: Sequence[str]) -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in names])
