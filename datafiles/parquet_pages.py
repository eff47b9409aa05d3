"""The memory that a Parquet file of a stranger can take, from the headers of its pages.

A few kilobytes can hold a page of gigabytes, or a value of megabytes that each row repeats. The
sizes in the file's table of contents may be wrong; a reader allocates what the header of a page
says, so the headers themselves are read here. They are Thrift structures in the compact protocol
(github.com/apache/parquet-format, github.com/apache/thrift/blob/master/doc/specs).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path

import pyarrow.parquet as pq

from datafiles.chunks import InvalidInput
from datafiles.columns import shown
from datafiles.lines import MAX_LINE_BYTES

# Of the largest page of each column, together: these are in memory at the same time. pyarrow takes
# six times as much to decode one value of that size.
MAX_PAGES_BYTES = 128 << 20
# Of the rows that are decoded at a time, if each holds the largest value that it can.
MAX_BATCH_BYTES = 64 << 20
# Of the table of contents at the end of a file. pyarrow reads it whole, and takes thirteen times as
# much for it, or more if somebody made it so.
MAX_CONTENTS_BYTES = 4 << 20
# The length of the table, and the mark of a Parquet file.
_END_BYTES = 8
_MARK = b"PAR1"
_USUAL_HEADER_BYTES = 1 << 12
# A header may hold the smallest and the largest value of its page.
_MAX_HEADER_BYTES = 1 << 20
_BAD_HEADER = "a page has no header that can be read"

_MAX_DEPTH = 8
_MAX_FIELD = 100
# Of all columns and row groups: more would take seconds to look at.
_MAX_PAGES = 50_000


class _Kind(IntEnum):
    """The types of fields that the headers of pages have; they have no lists, sets or maps."""

    stop = 0
    true = 1
    false = 2
    byte = 3
    i16 = 4
    i32 = 5
    i64 = 6
    double = 7
    binary = 8
    struct = 12


def check_contents(path: Path) -> None:
    """Check the size of the table of contents, before it is read.

    Raises:
        InvalidInput: it is too large.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _END_BYTES))
        end = file.read(_END_BYTES)
    length = int.from_bytes(end[:4], "little")
    if end[4:] == _MARK and length > MAX_CONTENTS_BYTES:
        raise InvalidInput(
            f"its table of contents has {length:,} bytes; of an upload at most "
            f"{MAX_CONTENTS_BYTES:,} are read. Write it with fewer columns, or larger row groups"
        )


def rows_at_once(path: Path, metadata: pq.FileMetaData, columns: Sequence[str], most: int) -> int:
    """How many rows of `columns` may be decoded at a time, at most `most`.

    Raises:
        InvalidInput: a page is too large, or a column holds lists, in which a single row may repeat
            a value as often as it likes.
        OSError: the file cannot be read.
    """
    wanted = _leaves(metadata, columns)
    largest = dict.fromkeys(wanted, 0)
    together = 0
    size = path.stat().st_size
    looked_at = 0
    with path.open("rb") as file:
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            if not group.num_rows:  # then it need not have pages
                continue
            for leaf in wanted:
                for page in _pages(file.fileno(), group.column(leaf), size):
                    looked_at += 1
                    together += max(0, page - largest[leaf])
                    largest[leaf] = max(largest[leaf], page)
                    if together > MAX_PAGES_BYTES:
                        raise InvalidInput(
                            f"its pages have more than {MAX_PAGES_BYTES >> 20} MiB when they are "
                            "read; write it with smaller pages, or choose columns by --id",
                            "--id",
                        )
                    if looked_at > _MAX_PAGES:
                        raise InvalidInput(f"it has more than {_MAX_PAGES:,} pages")
    # A value of fixed length takes its room also where it is null.
    fixed = sum(metadata.schema.column(leaf).length for leaf in wanted)
    if fixed > MAX_BATCH_BYTES:
        raise InvalidInput(f"a row has more than {MAX_BATCH_BYTES >> 20} MiB", "--id")
    return max(1, min(most, MAX_BATCH_BYTES // max(1, together + int(fixed))))


def _leaves(metadata: pq.FileMetaData, columns: Sequence[str]) -> list[int]:
    """The indices of what the columns are stored as; a struct is several."""
    names = set(columns)
    leaves, characters = [], 0
    for index in range(metadata.num_columns):
        leaf = metadata.schema.column(index)
        try:
            path = leaf.path
        except UnicodeDecodeError as error:
            raise InvalidInput("the name of a column is not in UTF-8") from error
        if not names.intersection(_prefixes(path)):
            continue
        if leaf.max_repetition_level > 0:
            raise InvalidInput(
                f"{shown(path)} holds lists, which are not read from an upload; choose other "
                "columns by --id",
                "--id",
            )
        leaves.append(index)
        characters += len(path)
        if characters > MAX_LINE_BYTES:
            raise InvalidInput(
                f"the names of its columns have more than {MAX_LINE_BYTES:,} characters together; "
                "choose columns by --id",
                "--id",
            )
    return leaves


def _prefixes(path: str) -> list[str]:
    """The names that the column of a leaf can have: a name may have dots of its own."""
    parts = path.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


def _pages(file: int, chunk: pq.ColumnChunkMetaData, size: int) -> Iterator[int]:
    """The bytes of each page of a column in a row group, decompressed."""
    offset: int = chunk.data_page_offset
    if chunk.dictionary_page_offset is not None and 0 < chunk.dictionary_page_offset < offset:
        offset = chunk.dictionary_page_offset
    end = offset + chunk.total_compressed_size
    if not 0 < offset <= end <= size:
        raise InvalidInput("a column lies outside the file")
    while offset < end:
        header = _header(file, offset, end)
        offset += header.length + header.compressed_bytes
        if offset > end:
            raise InvalidInput("a page goes on behind its column")
        yield header.uncompressed_bytes


def _header(file: int, offset: int, end: int) -> _Header:
    try:
        return _Header(os.pread(file, min(_USUAL_HEADER_BYTES, end - offset), offset))
    except InvalidInput:
        return _Header(os.pread(file, min(_MAX_HEADER_BYTES, end - offset), offset))


class _Header:
    """The header of a page."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0
        numbers = self._struct(0)
        try:
            self.uncompressed_bytes, self.compressed_bytes = numbers[2], numbers[3]
        except KeyError:
            raise InvalidInput(_BAD_HEADER) from None
        if self.uncompressed_bytes < 0 or self.compressed_bytes < 0:
            raise InvalidInput(_BAD_HEADER)
        self.length = self._at

    def _struct(self, depth: int) -> dict[int, int]:
        """Read a structure; returns its integers by the numbers of their fields."""
        if depth > _MAX_DEPTH:
            raise InvalidInput(_BAD_HEADER)
        numbers: dict[int, int] = {}
        seen: set[int] = set()
        field = 0
        while (head := self._take(1)[0]) != _Kind.stop:
            delta, kind = head >> 4, head & 15
            field = field + delta if delta else self._integer()
            # Other readers cut a number that is too large, or take the last of two.
            if not 0 < field <= _MAX_FIELD or field in seen:
                raise InvalidInput(_BAD_HEADER)
            seen.add(field)
            number = self._value(kind, depth)
            if number is not None:
                numbers[field] = number
        return numbers

    def _value(self, kind: int, depth: int) -> int | None:
        match kind:
            case _Kind.true | _Kind.false:
                pass
            case _Kind.i32:
                number = self._integer()
                if not -(1 << 31) <= number < 1 << 31:
                    raise InvalidInput(_BAD_HEADER)
                return number
            case _Kind.i16 | _Kind.i64:
                self._integer()
            case _Kind.byte:
                self._take(1)
            case _Kind.double:
                self._take(8)
            case _Kind.binary:
                self._take(self._unsigned())
            case _Kind.struct:
                self._struct(depth + 1)
            case _:
                raise InvalidInput(_BAD_HEADER)
        return None

    def _take(self, length: int) -> bytes:
        taken = self._content[self._at : self._at + length]
        if len(taken) < length:
            raise InvalidInput(_BAD_HEADER)
        self._at += length
        return taken

    def _unsigned(self) -> int:
        number = shift = 0
        while shift < 64:
            byte = self._take(1)[0]
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
        raise InvalidInput(_BAD_HEADER)

    def _integer(self) -> int:
        number = self._unsigned()
        return (number >> 1) ^ -(number & 1)
