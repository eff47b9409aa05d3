"""Reads a labelled set: a file with labels of predictions, by their ids or their texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import orjson

from analytics.feedback.labelled_sets import GivenLabel, Refused
from core.types import SENTIMENT_OF_LABEL, Sentiment
from datafiles.chunks import Chunk, InvalidInput, Position, UnusableRow, checked_text
from datafiles.formats import Format, Input, open_source

Row = Mapping[str, object]
FIRST_YEAR = 1970
_CLOCKS_APART = timedelta(days=1)
_OPTIONAL = ("prediction_id", "text", "labelled_at")
# All are in memory, half a gigabyte of them. People label fewer.
MOST_ROWS = 1_000_000


def read_labels(
    source: Input, now: datetime, *, most_rows: int = MOST_ROWS
) -> tuple[list[GivenLabel], list[Refused]]:
    """The usable rows of a file, and the others with their reasons; `now` is the time of those
    without `labelled_at`.

    Raises:
        InvalidInput: the file cannot be read, or has no column of labels, or of ids or texts, or
            more than `most_rows`.
    """
    labels: list[GivenLabel] = []
    refused: list[Refused] = []
    chunks, members = _open(source)
    for chunk in chunks:
        refused += [Refused(fault.line, fault.reason) for fault in chunk.rejected]
        if len(labels) + len(refused) + len(chunk.lines) > most_rows:
            raise InvalidInput(f"it has more than {most_rows:,} rows; cut it into smaller files")
        for line, label, row in zip(chunk.lines, chunk.texts, _rows(chunk), strict=True):
            try:
                labels.append(_given(line, SENTIMENT_OF_LABEL[label], members(row), now))
            except UnusableRow as error:
                refused.append(Refused(line, str(error)))
    return labels, refused


def _open(source: Input) -> tuple[Iterator[Chunk], Callable[[Any], Row]]:
    """The chunks, whose texts are the labels, and what reads the members of a row of them."""
    if source.format is Format.jsonl:
        found = open_source(source, "label", None, check=_label, as_lines=True)
        return found.chunks(Position(), None), _json_members
    optional = [name for name in _OPTIONAL if _has_column(source, name)]
    if not {"prediction_id", "text"} & set(optional):
        raise InvalidInput("it has no column prediction_id, and no column text")
    found = open_source(source, "label", optional, check=_label)
    return found.chunks(Position(), None), lambda row: dict(zip(optional, row, strict=True))


def _json_members(line: bytes) -> Row:
    try:
        members: Row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        # The source has decoded no member but the label: 1e999 is JSON, and too large a number.
        raise UnusableRow(f"invalid JSON: {error}") from None
    return members


def _has_column(source: Input, name: str) -> bool:
    try:
        return bool(open_source(source, "label", (name,), check=_label).names)
    except InvalidInput:
        # Whatever else is wrong with the file is wrong without the column too.
        open_source(source, "label", (), check=_label)
        return False


def _label(value: object) -> str:
    label = str(value).strip().lower() if value is not None else ""
    if label not in SENTIMENT_OF_LABEL:
        known = ", ".join(SENTIMENT_OF_LABEL)
        raise UnusableRow(f"label: {label[:100] or 'it is empty'}; known are {known}")
    return label


def _given(line: int, label: Sentiment, row: Row, now: datetime) -> GivenLabel:
    id_, text, at = (_string(row.get(name)) for name in _OPTIONAL)
    if not id_ and not text:
        raise UnusableRow("it has no prediction_id and no text")
    return GivenLabel(
        line,
        _parsed("prediction_id", UUID, id_) if id_ else None,
        checked_text(text) if text and not id_ else None,
        label,
        _parsed("labelled_at", partial(_time, now), at) if at else now,
    )


def _parsed(name: str, parse: Callable[[str], Any], value: str) -> Any:
    try:
        return parse(value.strip())
    except (ValueError, OverflowError):
        raise UnusableRow(f"{name}: {value[:100]} is none") from None


def _time(now: datetime, value: str) -> datetime:
    time = datetime.fromisoformat(value)
    if time.tzinfo is None:
        raise ValueError("a time needs an offset")
    # PostgreSQL's driver takes the first time of Python for an infinity. A label of a time to come
    # would be newer than all corrections; the clocks of two machines may be apart.
    if time.year < FIRST_YEAR or time > now + _CLOCKS_APART:
        raise ValueError("no label was given then")
    return time.astimezone(UTC)


def _rows(chunk: Chunk) -> Iterator[Any]:
    """The rows: of text files as they were read, of Parquet as tuples."""
    columns: Any = chunk.columns
    if isinstance(columns, list):
        return iter(columns)
    # Imported here because it needs pyarrow, which has read the file.
    from datafiles.readable_times import readable

    return zip(*(column.to_pylist() for column in readable(columns).columns), strict=True)


def _string(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.isoformat() if isinstance(value, datetime) else str(value)
