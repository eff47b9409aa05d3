"""The source of CSV files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from operator import methodcaller
from pathlib import Path

from datafiles.chunks import Chunk, InvalidInput, Position, UnusableRow, checked_text
from datafiles.lines import Lines
from datafiles.records import Record, RecordSource, strings_schema


class CsvSource(RecordSource):
    """A CSV file with a header, in UTF-8; quoted fields may contain line ends."""

    def __init__(self, path: Path, column: str, keep: Sequence[str] | None) -> None:
        super().__init__(path)
        with path.open("rb") as file:
            lines = Lines(file, Position())
            try:
                header = _next_row(_rows(lines))
            except StopIteration:
                header = []
            except UnusableRow as error:
                raise InvalidInput(f"the header cannot be read: {error}") from error
            self._data = Position(lines.offset, lines.number)
        if not header:
            raise InvalidInput("a CSV file must begin with the names of its columns")
        if len(set(header)) != len(header):
            raise InvalidInput(f"two columns have the same name: {', '.join(header)}")
        names = header if keep is None else list(keep)
        for name in (column, *names):
            if name not in header:
                raise InvalidInput(f"no column {name}; the columns are: {', '.join(header)}")
        self._header = header
        self._column = column
        self.schema = strings_schema(names)

    def chunks(self, start: Position, limit: int | None) -> Iterator[Chunk]:
        return super().chunks(max(start, self._data, key=lambda position: position.offset), limit)

    def _reader(self, lines: Lines) -> Callable[[], Record | None]:
        rows = _rows(lines)
        return lambda: self._record(_next_row(rows))

    def _record(self, values: list[str]) -> Record | None:
        if not values:
            return None
        if len(values) != len(self._header):
            raise UnusableRow(f"{len(values)} fields; the header has {len(self._header)}")
        row = dict(zip(self._header, values, strict=True))
        return Record(checked_text(row[self._column]), row)


def _rows(lines: Lines) -> Iterator[list[str]]:
    """Parse lines of limited length; it continues after a row that cannot be read."""
    # Bytes that are not UTF-8 become surrogates, which `_next_row` finds.
    decode = methodcaller("decode", "utf-8", "surrogateescape")
    # Strict, so that a quote that is never closed is an error.
    return csv.reader(map(decode, iter(lines.next_line, b"")), strict=True)


def _next_row(rows: Iterator[list[str]]) -> list[str]:
    try:
        row = next(rows)
        "".join(row).encode()
    except csv.Error as error:
        raise UnusableRow(f"invalid CSV: {error}") from None
    except UnicodeEncodeError:
        raise UnusableRow("not in UTF-8") from None
    return row
