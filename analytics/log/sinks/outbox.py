"""The ids of the predictions that PostgreSQL has stored, for the sinks, in files beside the spool.

A record is written within the transaction that stores its predictions, with the transaction's
number, before the commit. So PostgreSQL knows of each record whether it counts, whatever dies in
between, and of all shippers together an id is in one record that counts.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, NamedTuple
from uuid import UUID

import msgspec

from analytics.log.segments import is_at
from core import metrics
from core.atomic_file import fsync_folder
from core.errors import describe_error
from core.private_files import FOLDER_MODE, open_private, open_regular
from core.types import SinkName
from core.unreadable import UNREADABLE
from core.uuid7 import new_id, time_of

logger = logging.getLogger("bentoml.sentiment.log")

FOLDER = "sinks"
_SUFFIX = ".ids"
# A record is the smallest part that a sink takes.
RECORD_PREDICTIONS = 100
FILE_BYTES = 1 << 20
# An id is 39 bytes of JSON, and a record of one prediction 150.
_BYTES_A_PREDICTION = 256
_MILLISECOND = timedelta(milliseconds=1)


class Position(msgspec.Struct, frozen=True):
    """A place between two records: `number` predictions are in the outbox before it."""

    file: str
    offset: int
    number: int


class Record(msgspec.Struct, frozen=True):
    """Predictions of one transaction; `number` predictions are in the outbox before them."""

    number: int
    transaction: int
    at: datetime
    ids: tuple[UUID, ...]
    characters: int = 0  # of the texts that are stored with them; earlier releases did not say


class Found(NamedTuple):
    """A record, and the positions before and after it."""

    record: Record
    start: Position
    end: Position


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


class Outbox:
    """Appends records to files, and reads them; one process at a time has the folder."""

    def __init__(
        self,
        spool: Path,
        sinks: Sequence[SinkName],
        *,
        sync: bool,
        max_predictions: int,
        file_bytes: int = FILE_BYTES,
    ) -> None:
        """`sync`: a record survives a power cut. `max_predictions` may wait for each of `sinks`."""
        self.folder = spool / FOLDER
        self._sinks = sinks
        self._sync = sync
        # Sinks drop what is past their bound a moment later, and PostgreSQL has to be asked first.
        self._max_bytes = max_predictions * _BYTES_A_PREDICTION + 4 * file_bytes
        self._file_bytes = file_bytes
        self._file: IO[bytes] | None = None
        self._path = self.folder
        self._size = 0
        self._failed = False
        self.number = self._last_number()

    async def append(self, transaction: int, characters: Mapping[UUID, int]) -> None:
        """Write the ids that a transaction stores, before it is committed.

        `characters`: of the text that is stored with each. While the disk refuses the ids, they
        are lost to the sinks: PostgreSQL does not wait.
        """
        try:
            await asyncio.to_thread(self._append, transaction, characters)
        except OSError as error:
            for sink in self._sinks:
                metrics.sink_lost.labels(sink).inc(len(characters))
            if not self._failed:
                logger.error("stored predictions are lost to the sinks: %s", describe_error(error))  # noqa: TRY400
            self._failed = True
        else:
            self._failed = False

    def _append(self, transaction: int, characters: Mapping[UUID, int]) -> None:
        now, lines = datetime.now(UTC), []
        number = self.number
        stored = tuple(characters)
        for first in range(0, len(stored), RECORD_PREDICTIONS):
            ids = stored[first : first + RECORD_PREDICTIONS]
            size = sum(map(characters.__getitem__, ids))
            lines.append(_encoder.encode(Record(number, transaction, now, ids, size)) + b"\n")
            number += len(ids)
        data = b"".join(lines)
        file = self._open_file(len(data))
        unwritten = memoryview(data)
        try:
            while unwritten:
                unwritten = unwritten[file.write(unwritten) :]
        except OSError:
            # The next file takes the records that follow, with the same numbers. A reader passes
            # over half a line, but not over the whole ones before it.
            with suppress(OSError):
                file.truncate(self._size)
            self.close()
            raise
        self._size += len(data)
        self.number = number
        if self._sync:
            with suppress(OSError):  # written all the same; the spool finds out about its disk
                os.fdatasync(file.fileno())

    def _open_file(self, needed_bytes: int) -> IO[bytes]:
        if self._file is not None and not is_at(self._file, self._path):
            self.close()  # somebody has deleted the folder: what waited in it is gone
        if self._file is None or self._size >= self._file_bytes:
            self.close()
            self.folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            held = sum(path.stat().st_size for path in self._files())
            if held + needed_bytes > self._max_bytes:
                raise OSError(f"{held} bytes wait for the sinks, and no more may wait")
            self._path = self.folder / f"{new_id(self._next_time())}{_SUFFIX}"
            self._file = open(self._path, "xb", buffering=0, opener=open_private)  # noqa: SIM115
            self._size = 0
            if self._sync:
                fsync_folder(self.folder)
        return self._file

    def _next_time(self) -> datetime:
        """The time for the name of a new file: after all others', also if the clock was set back.

        The names order the files.
        """
        at = datetime.now(UTC)
        for path in (self._path, *self._files()[-1:]):
            with suppress(ValueError, OverflowError):  # somebody else has named it
                at = max(at, time_of(UUID(path.stem)) + _MILLISECOND)
        return at

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def beginning(self) -> Position:
        """The position before the oldest record that is there."""
        for path in self._files():
            for found in self._records(path, 0):
                return found.start
        return self.end()

    def end(self) -> Position:
        """The position after the newest record."""
        files = self._files()
        if not files:
            return Position("", 0, self.number)
        return Position(files[-1].name, files[-1].stat().st_size, self.number)

    def has(self, position: Position) -> bool:
        """Whether the file of a position is there; it goes once all sinks are past it."""
        return (self.folder / position.file).is_file()

    def read(
        self, start: Position, max_predictions: int, max_characters: float = math.inf
    ) -> list[Found]:
        """The records from a position on, at most so many of either, or one record.

        Raises:
            OSError: a file cannot be read.
        """
        records: list[Found] = []
        predictions = characters = 0
        for path in self._files():
            if path.name < start.file:
                continue
            for found in self._records(path, start.offset if path.name == start.file else 0):
                predictions += len(found.record.ids)
                characters += found.record.characters
                is_full = predictions > max_predictions or characters > max_characters
                if records and is_full:
                    return records
                records.append(found)
        return records

    def read_until(self, start: Position, end: Position) -> list[Found]:
        """The records between two positions."""
        wanted = end.number - start.number
        return [found for found in self.read(start, wanted) if found.record.number < end.number]

    def forget(self, needed: Iterable[Position]) -> None:
        """Delete the files that are before all of the positions."""
        first = min((position.file for position in needed), default="")
        files = self._files()
        for path in files[:-1]:
            if path.name < first:
                path.unlink(missing_ok=True)

    def _records(self, path: Path, offset: int) -> Iterator[Found]:
        # A file that is gone has been passed by all sinks.
        with suppress(FileNotFoundError), open(path, "rb", opener=open_regular) as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # it is being written, or its process died: it was not committed
                start, offset = offset, offset + len(line)
                with suppress(*UNREADABLE):
                    record = _decoder.decode(line)
                    number = record.number + len(record.ids)
                    yield Found(
                        record,
                        Position(path.name, start, record.number),
                        Position(path.name, offset, number),
                    )

    def _last_number(self) -> int:
        for path in reversed(self._files()):
            with suppress(OSError):
                for found in reversed(list(self._records(path, 0))):
                    return found.end.number
        return 0

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{_SUFFIX}"))
