"""The source of CSV files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Generator, Iterator, Sequence

from datafiles.chunks import (
    CHUNK_TEXT_BYTES,
    CheckText,
    Chunk,
    InvalidInput,
    Position,
    UnusableRow,
    checked_text,
)
from datafiles.columns import find_column, find_columns, require_distinct, require_few
from datafiles.lines import MAX_LINE_BYTES, Lines
from datafiles.records import Record, RecordSource
from datafiles.text_file import TextFile

# In the order of preference, if the header allows several.
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
# Excel reads the delimiter from such a first line.
_SEP = re.compile(r'"?sep=(.)"?\r*(?:\n|\r|$)', re.IGNORECASE)
# Names that people write for characters that a shell eats.
_NAMED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


# Of a whole process. A record has a bound already, and a field may be all of it.
csv.field_size_limit(MAX_LINE_BYTES)


class CsvSource(RecordSource):
    """A CSV file with a header; quoted fields may contain line ends.

    Without a `delimiter` it is that of a first line `sep=;`, or else the one that gives the header
    the wanted columns.
    """

    def __init__(
        self,
        file: TextFile,
        column: str,
        keep: Sequence[str] | None,
        delimiter: str | None,
        check: CheckText = checked_text,
    ) -> None:
        super().__init__(file)
        self._check = check
        sep = _SEP.match(file.sample)
        if delimiter is not None:
            self._delimiter = _checked(delimiter)
        elif sep:
            self._delimiter = sep[1]
        else:
            self._delimiter = _detected(file.sample, (column, *(keep or ())), file.path.suffix)
        self._skips_blanks = False
        header = self._read_header(file, has_sep=sep is not None)
        if _has_blanks(header, file.sample, self._delimiter):
            self._skips_blanks = True
            header = self._read_header(file, has_sep=sep is not None)
        self._fields = len(header)
        self._text = find_column(column, header)
        self.column = header[self._text]
        if keep is None:
            require_distinct(header)
        kept = range(len(header)) if keep is None else find_columns(keep, header)
        self._kept = list(kept)
        self.names = [header[index] for index in self._kept]

    @property
    def description(self) -> str:
        by = DELIMITERS.get(self._delimiter, f"the character {self._delimiter}")
        blanks = " and blanks" if self._skips_blanks else ""
        return f"CSV with {by}{blanks}, {self._file.description}"

    def chunks(
        self, start: Position, limit: int | None, text_bytes: int = CHUNK_TEXT_BYTES
    ) -> Generator[Chunk, None, None]:
        start = max(start, self._data, key=lambda position: position.offset)
        return super().chunks(start, limit, text_bytes)

    def _read_header(self, file: TextFile, *, has_sep: bool) -> list[str]:
        """Read the names of the columns; the rows begin after them."""
        with file.open(0) as stream:
            lines = Lines(file, stream, Position())
            if has_sep:
                lines.next_line()
                lines.begin_record()
            try:
                header = self._next_row(self._rows(lines), lines)
            except StopIteration:
                header = []
            except UnusableRow as error:
                raise InvalidInput(f"the header cannot be read: {error}") from error
            self._data = Position(lines.offset, lines.number)
        if not header:
            raise InvalidInput("a CSV file must begin with the names of its columns")
        require_few(header)
        if "\0" in "".join(header):
            raise InvalidInput("its header has NUL characters, so it is no text file")
        if header[0].lstrip().startswith("{"):
            raise InvalidInput("it has JSON lines, not CSV", "--from jsonl")
        return header

    def _reader(self, lines: Lines) -> Callable[[], Record | None]:
        rows = self._rows(lines)
        return lambda: self._record(self._next_row(rows, lines))

    def _record(self, values: list[str]) -> Record | None:
        if not values:
            return None
        if len(values) != self._fields:
            raise UnusableRow(f"{len(values)} fields; the header has {self._fields}")
        return Record(self._check(values[self._text]), [values[index] for index in self._kept])

    def _rows(self, lines: Lines) -> Iterator[list[str]]:
        """Parse lines of limited length; it continues after a row that cannot be read."""
        # Strict, so that a quote that is never closed is an error.
        return csv.reader(
            _Decoded(lines),
            delimiter=self._delimiter,
            skipinitialspace=self._skips_blanks,
            strict=True,
        )

    def _next_row(self, rows: Iterator[list[str]], lines: Lines) -> list[str]:
        """Read a row. One that cannot be read is its first line alone: an open quote may be its
        fault, and the lines after it rows of their own.
        """
        try:
            row = next(rows)
        except csv.Error as error:
            lines.return_all_but_first()
            # Python's advice after the dash is for its own users.
            raise UnusableRow(f"invalid CSV: {str(error).partition(' - ')[0]}") from None
        except UnusableRow:
            lines.return_all_but_first()
            raise
        try:
            "".join(row).encode()
        except UnicodeEncodeError:
            raise UnusableRow(f"not in {self._file.name}") from None
        return row


class _Decoded(Iterator[str]):
    """The lines as strings; bytes that are not UTF-8 become surrogates.

    No generator, because reading goes on after an error, and after lines are read again at the end.
    """

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def __next__(self) -> str:
        if line := self._lines.next_line():
            return line.decode("utf-8", "surrogateescape")
        raise StopIteration


def _has_blanks(header: Sequence[str], sample: str, delimiter: str) -> bool:
    """Whether a blank follows each delimiter, also before quotes, which would be text otherwise."""
    names = header[1:]
    has_blanks = bool(names) and all(name.startswith(" ") for name in names)
    if delimiter == " ":
        # A search would go from each blank of a run to its end, and let no other thread work.
        return has_blanks and '  "' in sample
    return has_blanks and re.search(f'{re.escape(delimiter)} +"', sample) is not None


def _checked(delimiter: str) -> str:
    delimiter = _NAMED.get(delimiter.lower(), delimiter)
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise InvalidInput("the delimiter must be a character, or tab", "--delimiter")
    return delimiter


def _detected(sample: str, wanted: Sequence[str], suffix: str) -> str:
    """The delimiter with which the header has the wanted columns, or else the most columns."""
    order = sorted(DELIMITERS, key=lambda sign: sign != "\t" or suffix != ".tsv")
    headers = {delimiter: _header(sample, delimiter) for delimiter in order}

    def fits(delimiter: str) -> bool:
        try:
            require_few(headers[delimiter])
            find_columns(wanted, headers[delimiter])
        except InvalidInput:
            return False
        return True

    return next(filter(fits, order), max(order, key=lambda d: max(1, len(headers[d]))))


def _header(sample: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter, strict=True))
    except (csv.Error, StopIteration):
        return []
