"""Appends lines to a spool in a thread, with one write for all lines that wait."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Literal, NamedTuple

from analytics.log.segments import (
    TEMP_SUFFIX,
    count_predictions,
    fsync_folder,
    new_segment,
    remove_temporary,
    segments,
    size_bytes,
    try_lock,
)
from core import metrics

logger = logging.getLogger("bentoml.sentiment.log")

Durability = Literal["fsync", "page_cache"]
WhenFull = Literal["refuse", "drop_oldest"]

# The shipper deletes whole segments, so short ones free their space soon and show how far behind it
# is. While many wait, new ones are longer: a day without PostgreSQL must not leave 86,400 files.
SEGMENT_BYTES = 8 << 20
SEGMENT_SECONDS = 1.0
SEGMENT_SECONDS_BEHIND = 60.0
MANY_SEGMENTS = 100


class SpoolFull(Exception):
    """The spool holds `max_bytes`."""


class _Append(NamedTuple):
    line: bytes
    done: asyncio.Future[None]


class Spool:
    """Writes the segments of one process into a folder that other processes may share."""

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        durability: Durability,
        when_full: WhenFull,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """`max_bytes` bounds all segments in `folder`, those of other processes too."""
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._when_full: WhenFull = when_full
        self._max_bytes = max_bytes
        self._durability: Durability = durability
        self._bytes = 0  # in the folder at the last count, and added since
        self._segment: _Segment | None = None
        self._queue: SimpleQueue[_Append | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="spool", daemon=True)

    def start(self) -> None:
        """Make the folder and start the thread. Raises OSError: the folder cannot be written to."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_temporary(self._folder)
        self._bytes = size_bytes(segments(self._folder))
        self._thread.start()

    async def append(self, line: bytes) -> None:
        """Return when `line` is on disk.

        Raises:
            SpoolFull: the spool holds `max_bytes`; nothing was written.
            OSError: the disk refuses the write.
        """
        done = asyncio.get_running_loop().create_future()
        self._queue.put(_Append(line, done))
        await done

    async def close(self) -> None:
        """Write the lines that wait and complete the segment."""
        if self._thread.is_alive():
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        closing = False
        while not closing:
            appends, closing = self._next()
            if appends:
                self._settle(appends, self._write(appends))
            if self._segment is not None and (
                closing
                or self._segment.size >= self._segment_bytes
                or not self._segment.due_in_seconds()
            ):
                self._segment.close()
                self._segment = None

    def _next(self) -> tuple[list[_Append], bool]:
        """The lines that wait, and whether the spool is closing."""
        timeout_seconds = None if self._segment is None else self._segment.due_in_seconds()
        appends: list[_Append] = []
        try:
            append = self._queue.get(timeout=timeout_seconds)
            while append is not None:
                appends.append(append)
                append = self._queue.get_nowait()
        except Empty:
            return appends, False
        return appends, True

    def _write(self, appends: Sequence[_Append]) -> Exception | None:
        data = b"".join(line for line, _ in appends)
        try:
            self._make_room(len(data))
            self._append(data)
        except Exception as error:  # noqa: BLE001  the edge of the thread: `append` raises it
            return error
        return None

    def _append(self, data: bytes) -> None:
        try:
            if self._segment is None:
                self._segment = _Segment(self._folder, self._durability)
            self._segment.append(data)
        except OSError as error:
            # The segment may hold half a line, so nothing more is written to it.
            if self._segment is not None:
                self._segment.close()
                self._segment = None
            if error.errno != errno.ENOSPC or not self._drop_oldest():
                raise
            self._append(data)
        else:
            self._bytes += len(data)

    def _make_room(self, needed: int) -> None:
        if self._bytes + needed > self._max_bytes:
            self._bytes = size_bytes(segments(self._folder))  # without the shipped ones
            while self._bytes + needed > self._max_bytes:
                if not self._drop_oldest():
                    raise SpoolFull

    def _drop_oldest(self) -> bool:
        """Delete the oldest complete segment; False if `when_full` forbids it or there is none."""
        if self._when_full == "refuse":
            return False
        for path in segments(self._folder):
            try:
                with path.open("rb") as file:
                    if not try_lock(file):
                        continue
                    dropped = count_predictions(file)
                    self._bytes -= file.tell()
                path.unlink()
            except FileNotFoundError:  # shipped meanwhile
                continue
            metrics.log_dropped.inc(dropped)
            logger.error("the spool is full; dropped the oldest %d predictions", dropped)
            return True
        return False

    def _settle(self, appends: Sequence[_Append], error: Exception | None) -> None:
        def settle() -> None:
            for _, done in appends:
                if not done.done():  # a client that left has cancelled it
                    if error is None:
                        done.set_result(None)
                    else:
                        done.set_exception(error)

        loop = appends[0].done.get_loop()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing awaits the line
            loop.call_soon_threadsafe(settle)


class _Segment:
    """The segment that the thread is writing."""

    def __init__(self, folder: Path, durability: Durability) -> None:
        path = new_segment(folder, datetime.now(UTC))
        # It gets its name once it is locked: an unlocked segment counts as complete.
        temporary = path.with_suffix(TEMP_SUFFIX)
        self._file = open(temporary, "xb", buffering=0, opener=_private)  # noqa: SIM115
        try:
            try_lock(self._file)
            temporary.rename(path)
            if durability == "fsync":
                fsync_folder(folder)
        except OSError:
            self._file.close()
            temporary.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise
        self._sync = durability == "fsync"
        self.size = 0
        behind = len(segments(folder)) > MANY_SEGMENTS
        self._due = time.monotonic() + (SEGMENT_SECONDS_BEHIND if behind else SEGMENT_SECONDS)

    def append(self, data: bytes) -> None:
        """Write all of `data` or nothing. Raises OSError; the segment must then be closed."""
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

    def due_in_seconds(self) -> float:
        return max(0.0, self._due - time.monotonic())

    def close(self) -> None:
        """Complete the segment by releasing its lock."""
        self._file.close()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
