"""The output Parquet: a stream of Arrow record batches, which is converted at the end.

A Parquet file has its table of contents at its end, so a killed run could not continue it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.types import Version
from datafiles.arrow_types import readable_schema, utc_schema
from datafiles.chunks import Columns, Source
from datafiles.parquet_source import ParquetSource
from scoring.outputs import Output, Scores, result_names

# The size of a row group of Parquet, which is in memory while it is written.
_GROUP_ROWS = 32_768
_GROUP_BYTES = 16 << 20
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY_SECONDS = 86_400
# Of the year 30,000; Arrow's calendar ends with 32,767.
_LAST_SECOND = 884_000_000_000


class ArrowOutput(Output):
    def __init__(self, source: Source, versions: Sequence[Version]) -> None:
        super().__init__(source.names, versions, source.column, ",")
        # Text files have strings.
        strings = pa.schema([(name, pa.string()) for name in source.names])
        self._schema = source.schema if isinstance(source, ParquetSource) else strings
        types = [pa.string(), pa.float64()] * len(versions)
        names = result_names(versions)
        self._fields = pa.schema(zip(names, [*types, pa.bool_()], strict=True))

    def head(self) -> bytes:
        return bytes(pa.schema([*self._schema, *self._fields]).serialize())

    def rows(self, columns: Columns, scores: Scores) -> bytes:
        table = columns
        if not isinstance(table, pa.Table):
            by_column = [[row[i] for row in table] for i in range(len(self._schema))]
            table = pa.table(by_column, self._schema)
        for field, values in zip(self._fields, self.results(scores), strict=True):
            table = table.append_column(field, pa.array(values, field.type))
        return b"".join(bytes(batch.serialize()) for batch in table.combine_chunks().to_batches())


def write_parquet(stream: Path, target: Path) -> None:
    """Convert a stream that `ArrowOutput` wrote to Parquet, row group by row group."""
    with (
        pa.OSFile(str(stream)) as file,
        pa.ipc.open_stream(file) as batches,
        pq.ParquetWriter(target, batches.schema, compression="zstd") as writer,
    ):
        for table in _groups(batches):
            writer.write_table(table)


def _groups(batches: pa.RecordBatchStreamReader) -> Iterator[pa.Table]:
    group: list[pa.RecordBatch] = []
    for batch in batches:
        group.append(batch)
        is_full = sum(batch.num_rows for batch in group) >= _GROUP_ROWS
        if is_full or sum(batch.nbytes for batch in group) >= _GROUP_BYTES:
            yield pa.Table.from_batches(group)
            group = []
    if group:
        yield pa.Table.from_batches(group)


def readable(table: pa.Table, text: str) -> pa.Table:
    """Convert times to strings with Arrow, because Python's times have no nanoseconds.

    The column `text` is UTF-8, also where its type is that of bytes.
    """
    if text in table.column_names:
        place = table.column_names.index(text)
        table = table.set_column(place, text, table.column(place).cast(pa.string()))
    out_of_range = _out_of_range(table)
    try:
        strings = table.cast(readable_schema(table.schema))
    except pa.ArrowInvalid:  # a time zone that this machine does not know
        in_utc = table.cast(utc_schema(table.schema))
        strings = in_utc.cast(readable_schema(in_utc.schema))
    for place, (rows, names) in out_of_range.items():
        column = pc.if_else(rows, names, strings.column(place))
        strings = strings.set_column(place, strings.field(place), column)
    return strings


def _out_of_range(table: pa.Table) -> dict[int, tuple[pa.ChunkedArray, pa.ChunkedArray]]:
    """The columns with times in a zone that no calendar reaches: which rows, and their values.

    A data base's "infinity" is such a time. Arrow makes a wrong date of it; without a zone it
    writes its value, as here.
    """
    found = {}
    for place, column in enumerate(table.columns):
        if pa.types.is_timestamp(column.type) and column.type.tz is not None:
            units = _UNITS[column.type.unit]
            numbers = column.cast(pa.int64())
            # The time of the zone, which is at most a day from UTC, has to be one too.
            end = min(_LAST_SECOND * units, (1 << 63) - 1 - _DAY_SECONDS * units)
            rows = pc.or_(pc.greater(numbers, end), pc.less(numbers, -end))
            if pc.any(rows).as_py():
                names = pc.binary_join_element_wise(
                    "<value out of range: ", numbers.cast(pa.string()), ">", ""
                )
                found[place] = rows, names
    return found
