"""The output Parquet: a stream of Arrow record batches, which is converted at the end.

A Parquet file has its table of contents at its end, so a killed run could not continue it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from core.types import Version
from datafiles.chunks import Columns, Source
from datafiles.parquet_source import ParquetSource
from scoring.outputs import Output, Scores, result_names

# The size of a row group of Parquet, which is in memory while it is written.
_GROUP_ROWS = 32_768
_GROUP_BYTES = 16 << 20


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

    def rows(self, columns: Columns, scores: Scores) -> Iterator[bytes]:
        table = columns
        if not isinstance(table, pa.Table):
            by_column = [[row[i] for row in table] for i in range(len(self._schema))]
            table = pa.table(by_column, self._schema)
        for field, values in zip(self._fields, self.results(scores), strict=True):
            table = table.append_column(field, pa.array(values, field.type))
        yield from (bytes(batch.serialize()) for batch in table.combine_chunks().to_batches())


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
