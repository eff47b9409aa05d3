"""A segment that this process writes: its lock, its file and the lines in it."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from analytics.log.segments import (
    TEMP_SUFFIX,
    is_at,
    new_segment,
    segments,
    try_lock,
    unlock,
)
from core.atomic_file import fsync_folder
from core.private_files import open_private

Durability = Literal["fsync", "page_cache"]

# Short segments show how far behind the shipper is. While many wait, new ones are longer: a day
# without PostgreSQL must not leave 86,400 files.
SEGMENT_SECONDS = 1.0
SEGMENT_SECONDS_BEHIND = 60.0
MANY_SEGMENTS = 100


class OpenSegment:
    """A segment that this process wrote, with its file, which outlives a deletion."""

    def __init__(self, folder: Path, durability: Durability) -> None:
        self.path = new_segment(folder, datetime.now(UTC))
        # It gets its name once it is locked: an unlocked segment counts as complete.
        temporary = self.path.with_suffix(TEMP_SUFFIX)
        self._file = open(temporary, "x+b", buffering=0, opener=open_private)  # noqa: SIM115
        try:
            # A process that starts may take it for one that a killed process left, and removes it.
            if not try_lock(self._file):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(temporary))
            temporary.rename(self.path)
            if durability == "fsync":
                fsync_folder(folder)
            behind = len(segments(folder)) > MANY_SEGMENTS
        except OSError:  # as of a folder that somebody deletes meanwhile
            self._file.close()
            temporary.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
            raise
        self._sync = durability == "fsync"
        self.size = 0
        self._due = time.monotonic() + (SEGMENT_SECONDS_BEHIND if behind else SEGMENT_SECONDS)

    def append(self, data: bytes) -> None:
        """Write all of `data` or nothing. Raises OSError; the segment must then be completed."""
        unwritten = memoryview(data)
        try:
            while unwritten:
                unwritten = unwritten[self._file.write(unwritten) :]
            if self._sync:
                os.fdatasync(self._file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(self.size)
            raise
        self.size += len(data)

    def content(self) -> bytes:
        """All lines, also of a file that was deleted."""
        return os.pread(self._file.fileno(), self.size, 0)

    def is_there(self) -> bool:
        return is_at(self._file, self.path)

    def is_empty(self) -> bool:
        """Whether the file has no lines, as after `delete_segment`."""
        return os.fstat(self._file.fileno()).st_size == 0

    def due_in_seconds(self) -> float:
        return max(0.0, self._due - time.monotonic())

    def complete(self) -> None:
        """Release the lock, so that the shipper may delete the segment."""
        unlock(self._file)

    def close(self) -> None:
        self._file.close()

    def delete(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)


def copies_of(
    lost: Sequence[OpenSegment], folder: Path, durability: Durability
) -> list[OpenSegment]:
    """Write the lines of each segment to a new one, which is complete.

    Raises:
        OSError: the disk refuses it; no copy is left.
    """
    copies: list[OpenSegment] = []
    try:
        for segment in lost:
            copy = OpenSegment(folder, durability)
            copies.append(copy)
            copy.append(segment.content())
            copy.complete()
    except OSError:
        for copy in copies:
            copy.delete()
        raise
    return copies
