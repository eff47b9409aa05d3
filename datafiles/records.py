"""The common part of the sources of text files: records are read and cut into chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NamedTuple

from datafiles.chunks import (
    CHUNK_BYTES,
    CHUNK_LINES,
    CHUNK_ROWS,
    CHUNK_TEXT_BYTES,
    Chunk,
    InvalidInput,
    Position,
    Rejection,
    UnusableRow,
)
from datafiles.lines import Lines
from datafiles.text_file import TextFile

# A spreadsheet has 1,048,576 rows, all of which it may write; some people leave lines between rows.
# A few megabytes of compressed line ends would keep a reader busy for hours.
MAX_BLANK_LINES = 1 << 21
BLANK_LINES_OF_A_ROW = 100
_END = object()


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

    def chunks(
        self, start: Position, limit: int | None, text_bytes: int = CHUNK_TEXT_BYTES
    ) -> Generator[Chunk, None, None]:
        with self._file.open(start.offset) as file:
            lines = Lines(self._file, file, start)
            rows, last, blank_lines, of_texts = start.rows, start, 0, 0
            usable: list[tuple[int, Record]] = []
            rejected: list[Rejection] = []
            records = self._records(lines)
            while (limit is None or rows < limit) and (record := next(records, _END)) is not _END:
                if record is None:
                    blank_lines += 1
                    _check_blank_lines(blank_lines, rows - start.rows, lines.number)
                else:
                    rows += 1
                if isinstance(record, Rejection):
                    rejected.append(record)
                elif isinstance(record, Record):
                    usable.append((lines.first, record))
                    of_texts += len(record.text.encode())
                if (
                    rows - last.rows == CHUNK_ROWS
                    or lines.offset - last.offset > CHUNK_BYTES
                    or of_texts > text_bytes
                    or lines.number - last.line >= CHUNK_LINES
                ):
                    last = Position(lines.offset, lines.number, rows)
                    yield _chunk(usable, rejected, last)
                    usable, rejected, of_texts = [], [], 0
            if usable or rejected:
                yield _chunk(usable, rejected, Position(lines.offset, lines.number, rows))

    def _records(self, lines: Lines) -> Iterator[Record | Rejection | None]:
        """The rows, and None for each blank line."""
        read = self._reader(lines)
        while True:
            lines.begin_record()
            try:
                yield read()
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


def _check_blank_lines(count: int, rows: int, line: int) -> None:
    """Raises InvalidInput: there are more than any program writes."""
    allowed = MAX_BLANK_LINES + BLANK_LINES_OF_A_ROW * rows
    if count > allowed:
        raise InvalidInput(f"it has more than {allowed:,} blank lines, up to line {line:,}")


def _chunk(usable: list[tuple[int, Record]], rejected: list[Rejection], end: Position) -> Chunk:
    texts, rows = [record.text for _, record in usable], [record.row for _, record in usable]
    return Chunk(texts, [line for line, _ in usable], rows, rejected, end)
