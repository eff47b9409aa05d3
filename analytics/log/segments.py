"""The files of a spool: naming, locking, reading and deleting them.

A spool is a folder of segments, files of JSON lines. Their names are UUIDv7, so they sort by time.
A process holds a lock (flock) on the segment that it writes to, and loses it when it ends, even
when it is killed. A segment that can be locked is therefore complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from uuid import UUID

from analytics.log.records import Entry, decode
from core.errors import describe_error
from core.private_files import open_regular
from core.unreadable import UNREADABLE
from core.uuid7 import new_id, time_of

logger = logging.getLogger("bentoml.sentiment.log")

_SUFFIX = ".ndjson"
# The shipper deletes whole segments, so short ones free their space soon.
SEGMENT_BYTES = 8 << 20
# A spool whose oldest segment is older does not keep up: it is about a second old while PostgreSQL
# takes what it is sent.
OVERDUE_SECONDS = 10.0
# Marks a segment that its process has not locked yet.
TEMP_SUFFIX = ".new"


def new_segment(folder: Path, at: datetime) -> Path:
    return folder / f"{new_id(at)}{_SUFFIX}"


def segments(folder: Path) -> list[Path]:
    """The segments in the folder, oldest first."""
    return sorted(folder.glob(f"*{_SUFFIX}"))


def begun_at(segment: Path) -> datetime:
    """The time in its name; of a file that somebody named or copied here, its last change."""
    with contextlib.suppress(ValueError):
        if (named := UUID(segment.stem)).version == 7:
            return time_of(named)
    try:
        return datetime.fromtimestamp(segment.lstat().st_mtime, UTC)
    except FileNotFoundError:  # shipped meanwhile
        return datetime.now(UTC)


def oldest_seconds(waiting: Sequence[Path]) -> float:
    """The time since the first of these segments was begun; 0 if there is none."""
    if not waiting:
        return 0.0
    return max(0.0, (datetime.now(UTC) - begun_at(waiting[0])).total_seconds())


def is_overdue(folder: Path) -> bool:
    """Whether the folder's oldest segment has waited too long for PostgreSQL."""
    return oldest_seconds(segments(folder)) > OVERDUE_SECONDS


def size_bytes(paths: Iterable[Path]) -> int:
    total = 0
    for path in paths:
        try:
            total += path.lstat().st_size
        except FileNotFoundError:  # shipped meanwhile
            continue
    return total


def lock(file: IO[Any]) -> None:
    """Lock the file until it is closed; waits for the process that holds the lock."""
    fcntl.flock(file, fcntl.LOCK_EX)


def unlock(file: IO[Any]) -> None:
    """Release the lock of a file that stays open."""
    fcntl.flock(file, fcntl.LOCK_UN)


def try_lock(file: IO[Any]) -> bool:
    """Lock the file until it is closed; False if another process holds the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass(slots=True)
class Chunk:
    """The result of one read."""

    entries: list[Entry]
    unreadable: list[bytes]
    finished: list[Path]  # complete segments that were read to their end
    is_full: bool  # more may wait


class SpoolReader:
    """Reads each line of a folder's segments once, also those that dead processes left."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read_bytes: dict[Path, int] = {}
        self._finished: set[Path] = set()
        self._failed: set[Path] = set()

    def read(self, max_predictions: int, max_bytes: float = math.inf) -> Chunk:
        """Read new lines, segment by segment, until there are at least so many of either."""
        chunk = Chunk([], [], [], is_full=False)
        predictions = read_bytes = 0
        present = segments(self._folder)
        self._forget_all_but(present)
        for path in present:
            if path not in self._finished:
                before = len(chunk.entries)
                read_bytes += self._read(path, chunk)
                predictions += sum(len(entry.predictions) for entry in chunk.entries[before:])
                if predictions >= max_predictions or read_bytes >= max_bytes:
                    chunk.is_full = True
                    break
        return chunk

    def _read(self, path: Path, chunk: Chunk) -> int:
        """Add the new lines of a segment to the chunk; returns their size in bytes."""
        start = self._read_bytes.get(path, 0)
        try:
            with open(path, "rb", opener=open_regular) as file:
                # Checked before reading: if it is complete now, the read gets all of it.
                complete = try_lock(file)
                file.seek(start)
                data = file.read()
        except FileNotFoundError:  # the spool dropped it meanwhile
            self._read_bytes.pop(path, None)
            return 0
        except OSError as error:  # the other segments are shipped meanwhile
            if path not in self._failed:
                logger.error("a segment cannot be read and waits: %s", describe_error(error))  # noqa: TRY400
            self._failed.add(path)
            return 0
        whole = data.rfind(b"\n") + 1
        self._read_bytes[path] = start + whole
        for line in data[:whole].split(b"\n")[:-1]:
            try:
                chunk.entries.append(decode(line))
            except UNREADABLE:
                chunk.unreadable.append(line)
        if complete:
            if len(data) > whole:
                # The line was not acknowledged: a reply waits for the whole line.
                logger.warning("%s ends within a line, its process died writing it", path.name)
            self._finished.add(path)
            chunk.finished.append(path)
        return whole

    def _forget_all_but(self, present: Iterable[Path]) -> None:
        """Forget segments that another program deleted."""
        gone = self._read_bytes.keys() - set(present)
        for path in gone:
            del self._read_bytes[path]
            self._finished.discard(path)

    def confirm(self, chunk: Chunk) -> None:
        """Delete the finished segments of a chunk that is stored."""
        for path in chunk.finished:
            with contextlib.suppress(FileNotFoundError):
                delete_segment(path)
            self._finished.discard(path)
            self._read_bytes.pop(path, None)


def is_at(file: IO[Any], path: Path) -> bool:
    """Whether an open file still has this path: it was neither deleted nor replaced."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def delete_segment(path: Path) -> None:
    """Delete a segment whose lines are not needed any more; its writer sees that it is empty.

    Emptying it frees its space at once: the process that wrote it keeps the file open for a while.

    Raises:
        FileNotFoundError: it is gone already.
        OSError: it is no regular file.
    """
    with open(path, "r+b", buffering=0, opener=open_regular) as file:
        file.truncate(0)
    path.unlink()


def count_predictions(file: IO[bytes]) -> int:
    """The number of predictions from the file's position to its end."""
    count = 0
    for line in file:
        with contextlib.suppress(*UNREADABLE):
            count += len(decode(line).predictions)
    return count


def remove_temporary(folder: Path) -> None:
    """Delete the temporary files of processes that were killed before they named a segment."""
    for path in folder.glob(f"*{TEMP_SUFFIX}"):
        with contextlib.suppress(OSError), open(path, "rb", opener=open_regular) as file:
            if try_lock(file):
                path.unlink(missing_ok=True)
