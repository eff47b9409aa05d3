"""Chunks of rows, on their way from a source to an output, with the rows that were rejected."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import pyarrow as pa
    from pydantic import TypeAdapter

# Rows that are read, scored and committed together. Batches never cross chunks, and an interruption
# never changes a chunk. So it changes no score, even on engines whose 8-bit scales depend on the
# rest of a batch.
CHUNK_ROWS = 1_024
# A chunk of so many bytes has fewer rows, so that little is in memory.
CHUNK_BYTES = 4 << 20
# To score a chunk takes a minute at most, also of long texts, two models and a slow core: so long
# do other jobs wait for its end. A thousand texts of a usual length have less.
CHUNK_TEXT_BYTES = 256 << 10
# Where all of a long text is read, of whose characters each may be a token.
CHUNK_WINDOWS_BYTES = 64 << 10
# Blank lines count here too, so that whoever waits for a chunk never waits for long.
CHUNK_LINES = 1 << 16
# Of a request: more than any file has, and few enough for every counter.
MAX_ROWS = 10**12
RAW_CHARACTERS = 1_000


@cache
def _text_rule() -> TypeAdapter[str]:
    # Imported here because it reads the settings, whose faults are told by commands and not at
    # import, and because not all that reads files checks texts.
    from pydantic import TypeAdapter

    from core.text_limits import Text

    return TypeAdapter(Text)


class InvalidInput(ValueError):
    """A file that cannot be read; the message says why.

    `option` is the option of a command that would read it, if there is one.
    """

    def __init__(self, message: str, option: str = "") -> None:
        super().__init__(message)
        self.option = option


class UnusableRow(ValueError):
    """A row that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a source was read: bytes and lines of a text file, rows of any file.

    The bytes are those of the text in UTF-8, whatever the file's compression and encoding are.
    """

    offset: int = 0
    line: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that is not used; `line` counts the lines of a text file, or Parquet rows."""

    line: int
    reason: str
    raw: str


# The input columns that a source repeats: from Parquet a table, from JSON lines to JSON lines the
# rows as JSON objects, which keep every digit of a number, and in all other cases rows of strings.
Columns: TypeAlias = "pa.Table | Sequence[bytes | Sequence[str | None]]"
# Checks and strips a text. It raises UnusableRow.
CheckText: TypeAlias = Callable[[object], str]


@dataclass(frozen=True, slots=True)
class Chunk:
    """`texts` are the stripped texts of the usable rows, and `lines` their lines or Parquet rows.

    `end` is the end of the chunk.
    """

    texts: Sequence[str]
    lines: Sequence[int]
    columns: Columns
    rejected: Sequence[Rejection]
    end: Position


class Source(Protocol):
    """A file of rows; `names` are the columns that it repeats, `column` is that of the text."""

    names: Sequence[str]
    column: str

    @property
    def description(self) -> str:
        """The format as it was found, for people."""
        ...

    def chunks(
        self, start: Position, limit: int | None, text_bytes: int = CHUNK_TEXT_BYTES
    ) -> Generator[Chunk, None, None]:
        """Read the chunks from `start` on, up to `limit` rows of the file.

        A chunk ends with the text that takes it past `text_bytes`.
        The file is open until they are all read, or closed.
        """
        ...

    def fraction(self, position: Position) -> float:
        """The share of the file before `position`, from 0 to 1."""
        ...


def checked_text(value: object) -> str:
    """Strip and check a text, by the rule of the HTTP service.

    Raises:
        UnusableRow: the text is blank, too long, no string, or contains a NUL character.
    """
    rule = _text_rule()
    from pydantic import ValidationError

    try:
        return rule.validate_python(value)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise UnusableRow(f"text: {message}") from None
