"""The outputs CSV and JSON lines, as bytes that are appended chunk by chunk."""

from __future__ import annotations

import base64
import csv
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from core.types import Classification, Version
from datafiles.chunks import Columns

# Further digits of a confidence are float32 noise.
_DIGITS = 6

Scores = Mapping[Version, Sequence[Classification]]
# Of a text that ends each runner that gets it.
NO_RESULT = Classification("", "", {"positive": 1.0}, 0, truncated=False, windows=0)


def result_names(versions: Sequence[Version]) -> list[str]:
    """The columns that an output adds to those of the input."""
    names = [f"{name}_{v}" for v in versions for name in ("sentiment", "confidence")]
    return [*names, "truncated"]


class Output(ABC):
    """Formats chunks as bytes to append; `names` are the columns of the input.

    A chunk is formatted row by row: a few megabytes of it may become gigabytes, as each row of JSON
    lines repeats the names of all columns.
    """

    def __init__(
        self, names: Sequence[str], versions: Sequence[Version], text: str, delimiter: str
    ) -> None:
        """`text` is the column of the texts, and `delimiter` that of CSV."""
        self._names = names
        self._versions = versions
        self._text = text
        self._delimiter = delimiter
        self._added = result_names(versions)

    def head(self) -> bytes:
        """The bytes before the first row."""
        return b""

    @abstractmethod
    def rows(self, columns: Columns, scores: Scores) -> Iterator[bytes]: ...

    def results(self, scores: Scores) -> list[Sequence[object]]:
        """The columns that are added."""
        columns: list[Sequence[object]] = []
        for version in self._versions:
            columns.append([result.sentiment for result in scores[version]])
            columns.append([round(result.confidence, _DIGITS) for result in scores[version]])
        by_row = zip(*(scores[version] for version in self._versions), strict=True)
        columns.append([any(result.truncated for result in results) for results in by_row])
        return columns


class CsvOutput(Output):
    def head(self) -> bytes:
        return b"".join(self._csv([[*self._names, *self._added]]))

    def rows(self, columns: Columns, scores: Scores) -> Iterator[bytes]:
        rows: Iterable[Iterable[object]] = columns
        if not isinstance(columns, Sequence):
            # Imported here because it needs pyarrow, which has read the file.
            from datafiles.readable_times import readable

            table = readable(columns, self._text)
            rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
        results = zip(*self.results(scores), strict=True)
        return self._csv(
            [_csv_value(value) for value in (*row, *added)]
            for row, added in zip(rows, results, strict=True)
        )

    def _csv(self, rows: Iterable[Sequence[object]]) -> Iterator[bytes]:
        line = _Line()
        writer = csv.writer(line, delimiter=self._delimiter)
        for row in rows:
            writer.writerow(row)
            yield line.row.encode()


class JsonOutput(Output):
    def rows(self, columns: Columns, scores: Scores) -> Iterator[bytes]:
        results = zip(*self.results(scores), strict=True)
        for row, added in zip(self._objects(columns), results, strict=True):
            yield _with_members(row, dict(zip(self._added, added, strict=True)))

    def _objects(self, columns: Columns) -> Iterator[bytes]:
        """The rows as JSON objects, of which those of JSON lines are already."""
        if not isinstance(columns, Sequence):
            from datafiles.readable_times import readable

            for row in readable(columns, self._text).to_pylist():
                yield orjson.dumps(_json_value(row), default=_as_string)
            return
        for row in columns:
            if isinstance(row, bytes):
                yield row
            else:
                yield orjson.dumps(dict(zip(self._names, row, strict=True)))


def _with_members(row: bytes, members: Mapping[str, object]) -> bytes:
    """A JSON object with further members, and a line feed."""
    return row.removesuffix(b"}").rstrip() + b"," + orjson.dumps(members)[1:] + b"\n"


class _Line:
    """The file that a CSV writer writes to: its last row, with a line feed at the end.

    The writer itself ends rows with CR LF, because it quotes only line ends that it writes: before
    Python 3.13 it would leave a lone CR in a field unquoted, which ends a row for many readers.
    """

    row = ""

    def write(self, row: str) -> None:
        self.row = row.removesuffix("\r\n") + "\n"


def _csv_value(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return orjson.dumps(_json_value(value), default=_as_string).decode().strip('"')


def _json_value(value: Any) -> Any:
    """Replace the numbers that JSON does not have by their names; orjson would write null."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' * (value < 0)}Infinity"
    if isinstance(value, dict):
        return {key: _json_value(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(member) for member in value]
    return value


def _as_string(value: object) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
