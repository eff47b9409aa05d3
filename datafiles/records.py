"""The common part of the sources of text files: records are read and cut into chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from datafiles.chunks import (
    CHUNK_BYTES,
    CHUNK_ROWS,
    Chunk,
    Position,
    Rejection,
    UnusableRow,
)
from datafiles.lines import Lines
from datafiles.text_file import TextFile


class Record(NamedTuple):
    """A usable row: its text, and the values of its columns or its JSON."""

    text: str
    row: Sequence[str | None] | bytes


class RecordSource(ABC):
    """A text file of records; a subclass parses them. `names` are the columns that it repeats."""

    names: Sequence[str]
    column: str

    def __init__(self, file: TextFile) -> None:
        self._file = file

    def fraction(self, position: Position) -> float:
        return self._file.fraction(position.offset)

    def chunks(self, start: Position, limit: int | None) -> Generator[Chunk, None, None]:
        with self._file.open(start.offset) as file:
            lines = Lines(self._file, file, start)
            rows, chunk_start = start.rows, start.offset
            usable: list[tuple[int, Record]] = []
            rejected: list[Rejection] = []
            left = None if limit is None else max(0, limit - rows)
            for record in islice(self._records(lines), left):
                rows += 1
                if isinstance(record, Rejection):
                    rejected.append(record)
                else:
                    usable.append((lines.first, record))
                is_full = len(usable) + len(rejected) == CHUNK_ROWS
                if is_full or lines.offset - chunk_start > CHUNK_BYTES:
                    yield _chunk(usable, rejected, Position(lines.offset, lines.number, rows))
                    usable, rejected, chunk_start = [], [], lines.offset
            if usable or rejected:
                yield _chunk(usable, rejected, Position(lines.offset, lines.number, rows))

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

    @property
    @abstractmethod
    def description(self) -> str: ...

    @abstractmethod
    def _reader(self, lines: Lines) -> Callable[[], Record | None]:
        """Make the function that reads the next record, and returns None for a blank line.

        It raises StopIteration at the end, and can be called again after it raised UnusableRow.
        """


def _chunk(usable: list[tuple[int, Record]], rejected: list[Rejection], end: Position) -> Chunk:
    texts, rows = [record.text for _, record in usable], [record.row for _, record in usable]
    return Chunk(texts, [line for line, _ in usable], rows, rejected, end)
