"""The sink that writes predictions as Parquet files by hour to a folder, each exactly once.

A batch writes one file for each hour in it, at `date=2026-11-27/hour=18/NAME.parquet`. The name is
that of the batch, so a repeated batch replaces its files. A reader never sees half of a file.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from uuid import uuid4

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem

from analytics.log.sinks.delivery import Delivered, GoneAmong, SinkUnavailable
from analytics.log.sinks.rows import Row
from core.atomic_file import fsync_folder
from core.errors import describe_error
from core.types import SENTIMENTS, SinkName

# As many as PostgreSQL gets at once.
BATCH_PREDICTIONS = 20_000
# Some packages of object stores wait for ever, and all try again and again by themselves.
PUT_SECONDS = 60.0
# A batch has to stay the same, so that over a slow link it gets more time, up to so many times it.
MAX_PUT_TIMES = 8
# A put of an object store is there whole or not at all.
_WHOLE_PUT = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"})
_TEXT = pa.string()
SCHEMA = pa.schema(
    [
        pa.field("id", _TEXT, nullable=False),
        pa.field("created_at", pa.timestamp("us", tz="UTC"), nullable=False),
        *(pa.field(name, _TEXT) for name in ("endpoint", "model_version", "model_revision")),
        *(pa.field(name, _TEXT) for name in ("engine", "sentiment")),
        *(
            pa.field(name, pa.float32())
            for name in ("confidence", *map("score_{}".format, SENTIMENTS))
        ),
        pa.field("latency_ms", pa.float32()),
        *(pa.field(name, pa.bool_()) for name in ("cache_hit", "truncated")),
        *(pa.field(name, pa.int32()) for name in ("windows", "token_count", "text_characters")),
        *(pa.field(name, _TEXT) for name in ("text", "text_hash", "subject_hash")),
        pa.field("hash_key_id", pa.int32()),
        pa.field("ab_salt", _TEXT),
        pa.field("ab_v2_percent", pa.float64()),
        pa.field("comparison_id", _TEXT),
    ]
)


class ParquetSink:
    """Writes files below a folder, on this machine or of an object store that fsspec knows."""

    name: SinkName = "parquet"
    batch_predictions = BATCH_PREDICTIONS
    keeps_batches = True

    def __init__(self, url: str, *, batch_seconds: float, put_seconds: float = PUT_SECONDS) -> None:
        """An object store that has not taken a file after `put_seconds` is asked again later."""
        self.batch_seconds = batch_seconds
        self._url = url
        self._put_seconds = put_seconds
        self._put_times = 1
        self._writing: asyncio.Future[None] | None = None

    async def deliver(self, name: str, rows: Sequence[Row], gone_among: GoneAmong) -> Delivered:
        # A folder that hangs keeps its thread. No second one joins it, so nothing piles up.
        gone: set[str] = set()
        if self._writing is not None:
            await asyncio.wait({self._writing})
            gone = await gone_among(row["id"] for row in rows)
            rows = [row for row in rows if row["id"] not in gone]
        self._writing = _in_thread(partial(self._write, name, rows))
        try:
            await asyncio.shield(self._writing)
        except TimeoutError:
            seconds = self._put_seconds * self._put_times
            self._put_times = min(MAX_PUT_TIMES, 2 * self._put_times)
            raise SinkUnavailable(f"the store has not taken a file within {seconds:g} s") from None
        except OSError as error:
            raise SinkUnavailable(
                f"the folder cannot be written to: {describe_error(error)}"
            ) from None
        except Exception as error:  # noqa: BLE001  each store has errors of its own, with secrets
            raise SinkUnavailable(f"the store fails: {type(error).__name__}") from None
        self._put_times = 1
        return Delivered(len(rows), gone=len(gone))

    async def close(self) -> None:
        pass

    def _write(self, name: str, rows: Sequence[Row]) -> None:
        folder = Folder(self._url, put_seconds=self._put_seconds * self._put_times)
        hours: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            hours[f"{row['created_at']:date=%Y-%m-%d/hour=%H}"].append(row)
        for hour, of_hour in hours.items():
            folder.put(f"{hour}/{name}.parquet", _file_of(of_hour))


class Folder:
    """A folder by its URL; files in it are written whole or not at all."""

    def __init__(self, url: str, *, put_seconds: float = PUT_SECONDS) -> None:
        """Raises whatever the file system of the URL raises."""
        self._fs, self._root = fsspec.core.url_to_fs(url)
        # Of `fsspec.asyn.sync`, by which the packages of object stores are called.
        is_async = isinstance(self._fs, AsyncFileSystem)
        self._limit = {"timeout": put_seconds} if is_async else {}

    def put(self, path: str, content: pa.Buffer) -> None:
        target = str(PurePosixPath(self._root) / path)
        protocols = {self._fs.protocol} if isinstance(self._fs.protocol, str) else self._fs.protocol
        if not _WHOLE_PUT.isdisjoint(protocols):
            self._fs.pipe_file(target, content.to_pybytes(), **self._limit)
            return
        folder, _, name = target.rpartition("/")
        temporary = f"{folder}/.{name}.new"
        self._fs.makedirs(folder, exist_ok=True)
        if isinstance(self._fs, LocalFileSystem):
            _put_local(target, temporary, content)
        else:
            self._fs.pipe_file(temporary, content.to_pybytes(), **self._limit)
            self._fs.mv(temporary, target)

    def remove(self, path: str) -> None:
        self._fs.rm_file(str(PurePosixPath(self._root) / path))


async def try_folder(url: str) -> None:
    """Make a file in a folder and remove it. Raises whatever its file system raises."""
    await _in_thread(partial(_try_folder, url))


def local_folder(url: str) -> Path | None:
    """The folder on this machine that a URL or path names; None for that of a store."""
    fs, root = fsspec.core.url_to_fs(url)
    return Path(root) if isinstance(fs, LocalFileSystem) else None


def _try_folder(url: str) -> None:
    folder, path = Folder(url), f".check-{uuid4()}"
    folder.put(path, pa.py_buffer(b""))
    folder.remove(path)


def _put_local(target: str, temporary: str, content: pa.Buffer) -> None:
    with Path(temporary).open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(temporary).replace(target)
    fsync_folder(Path(target).parent)


def _file_of(rows: Sequence[Row]) -> pa.Buffer:
    """The rows as a Parquet file."""
    columns = {name: [row[name] for row in rows] for name in SCHEMA.names}
    written = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=SCHEMA), written, compression="zstd")
    return written.getvalue()


def _in_thread(work: Callable[[], None]) -> asyncio.Future[None]:
    """Run `work` in a thread of its own, which does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: Exception | None) -> None:
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error: Exception | None = None
        try:
            work()
        except Exception as failure:  # noqa: BLE001  the edge of the thread: the caller gets it
            error = failure
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, name="parquet-sink", daemon=True).start()
    return done
