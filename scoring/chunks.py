"""What goes from a source to an output: chunks of rows, those that cannot be scored told apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from core.input_text import Text

# Rows that are read, scored and committed together. Batches never cross chunks, and a chunk is the
# same whether the run was interrupted or not: so is every score, even on engines whose 8-bit
# scales depend on the rest of a batch.
CHUNK_ROWS = 1_024
# Or fewer, if they are so large: what is in memory stays small.
CHUNK_BYTES = 4 << 20
RAW_CHARACTERS = 1_000

_TEXT: TypeAdapter[str] = TypeAdapter(Text)


class InvalidInput(ValueError):
    """A file that cannot be scored at all, with what is wrong with it."""


class UnusableRow(ValueError):
    """A row that cannot be scored, with what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a source was read: bytes and lines of a text file, and rows of any."""

    offset: int = 0
    line: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that was not scored; `line` is that of a text file, or the row of a Parquet file."""

    line: int
    reason: str
    raw: str


class Carried(Protocol):
    """The columns of a chunk that go over to the output, as the output wants them."""

    def as_json(self) -> Sequence[bytes]:
        """A JSON object for each row, with at least one member."""
        ...

    def as_strings(self) -> Sequence[Sequence[str]]: ...

    def as_table(self) -> pa.Table: ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """`texts` are those of the rows that can be scored, stripped; `end` is where it ends."""

    texts: Sequence[str]
    carried: Carried
    rejected: Sequence[Rejection]
    end: Position


class Source(Protocol):
    """A file of rows. `schema` has the columns that go over to the output."""

    schema: pa.Schema

    def chunks(self, start: Position, limit: int | None) -> Iterator[Chunk]:
        """The chunks from `start` on, up to `limit` rows of the file."""
        ...

    def fraction(self, position: Position) -> float:
        """How much of the file has been read at `position`, from 0 to 1."""
        ...


def checked_text(value: object) -> str:
    """The text as a model gets it, by the rule of the service.

    Raises:
        UnusableRow: it is empty, too long, no string, or holds a NUL character.
    """
    try:
        return _TEXT.validate_python(value)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise UnusableRow(f"text: {message}") from None
