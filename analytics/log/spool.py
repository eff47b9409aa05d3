"""Appends lines to a spool: a thread of its own, and one write for all that wait for it."""

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
    remove_unborn,
    segments,
    size_bytes,
    try_lock,
)
from core import metrics

logger = logging.getLogger("bentoml.sentiment.log")

Durability = Literal["fsync", "page_cache"]
WhenFull = Literal["refuse", "drop_oldest"]

# A segment is deleted as a whole, so small ones free their space soon and tell how far behind the
# log is. While nothing is deleted they are larger: a day without PostgreSQL must not make 86,400.
SEGMENT_BYTES = 8 << 20
SEGMENT_SECONDS = 1.0
SEGMENT_SECONDS_BEHIND = 60.0
MANY_SEGMENTS = 100


class SpoolFull(Exception):
    """The spool holds as much as it may."""


class _Waiting(NamedTuple):
    line: bytes
    done: asyncio.Future[None]


class Spool:
    """The segments of one process in a folder that others may use as well."""

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        durability: Durability,
        when_full: WhenFull,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """Of all segments in `folder` together, at most about `max_bytes`."""
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._when_full: WhenFull = when_full
        self._max_bytes = max_bytes
        self._durability: Durability = durability
        self._bytes = 0  # in the folder when last looked at, and what was added since
        self._segment: _Segment | None = None
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._thread = Thread(target=self._keep_writing, name="spool", daemon=True)

    def start(self) -> None:
        """Raises OSError: the folder cannot be written to."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_unborn(self._folder)
        self._bytes = size_bytes(segments(self._folder))
        self._thread.start()

    async def append(self, line: bytes) -> None:
        """Return when `line` is on disk.

        Raises:
            SpoolFull: it holds `max_bytes`; nothing was written.
            OSError: the disk does not take it.
        """
        done = asyncio.get_running_loop().create_future()
        self._queue.put(_Waiting(line, done))
        await done

    async def close(self) -> None:
        """Write what waits and leave the segments complete."""
        if self._thread.is_alive():
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    def _keep_writing(self) -> None:
        closing = False
        while not closing:
            waiting, closing = self._next()
            if waiting:
                self._settle(waiting, self._write(waiting))
            if self._segment is not None and (
                closing or self._segment.size >= self._segment_bytes or self._segment.is_due()
            ):
                self._segment.close()
                self._segment = None

    def _next(self) -> tuple[list[_Waiting], bool]:
        """What waits to be written, and whether that is the end."""
        timeout_seconds = None if self._segment is None else self._segment.due_in_seconds()
        waiting: list[_Waiting] = []
        try:
            one = self._queue.get(timeout=timeout_seconds)
            while one is not None:
                waiting.append(one)
                one = self._queue.get_nowait()
        except Empty:
            return waiting, False
        return waiting, True

    def _write(self, waiting: Sequence[_Waiting]) -> Exception | None:
        data = b"".join(line for line, _ in waiting)
        try:
            self._make_room(len(data))
            self._append(data)
        except Exception as error:  # noqa: BLE001  the edge of the thread: whoever waits is told
            return error
        return None

    def _append(self, data: bytes) -> None:
        try:
            if self._segment is None:
                self._segment = _Segment(self._folder, self._durability)
            self._segment.append(data)
        except OSError as error:
            # Whatever it has become, nothing more is written to it.
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
            self._bytes = size_bytes(segments(self._folder))  # what was shipped is gone
            while self._bytes + needed > self._max_bytes:
                if not self._drop_oldest():
                    raise SpoolFull

    def _drop_oldest(self) -> bool:
        """Whether there was a segment to drop, and it may be."""
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
            logger.error("the spool is full: dropped its oldest %d predictions", dropped)
            return True
        return False

    def _settle(self, waiting: Sequence[_Waiting], error: Exception | None) -> None:
        def settle() -> None:
            for _, done in waiting:
                if not done.done():  # its client may have left
                    if error is None:
                        done.set_result(None)
                    else:
                        done.set_exception(error)

        loop = waiting[0].done.get_loop()
        with contextlib.suppress(RuntimeError):  # it has ended, and nobody waits
            loop.call_soon_threadsafe(settle)


class _Segment:
    """The segment that is being written."""

    def __init__(self, folder: Path, durability: Durability) -> None:
        path = new_segment(folder, datetime.now(UTC))
        # Under its name only when it is locked: who finds it unlocked takes it for complete.
        hidden = path.with_suffix(TEMP_SUFFIX)
        self._file = open(hidden, "xb", buffering=0, opener=_private)  # noqa: SIM115
        try:
            try_lock(self._file)
            hidden.rename(path)
            if durability == "fsync":
                fsync_folder(folder)
        except OSError:
            self._file.close()
            hidden.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise
        self._sync = durability == "fsync"
        self.size = 0
        behind = len(segments(folder)) > MANY_SEGMENTS
        self._due = time.monotonic() + (SEGMENT_SECONDS_BEHIND if behind else SEGMENT_SECONDS)

    def append(self, data: bytes) -> None:
        """All of `data` or nothing. Raises OSError; then it must be closed."""
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
            if self._sync:
                os.fdatasync(self._file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(self.size)
            raise
        self.size += len(data)

    def is_due(self) -> bool:
        return time.monotonic() >= self._due

    def due_in_seconds(self) -> float:
        return max(0.0, self._due - time.monotonic())

    def close(self) -> None:
        """Let the lock go: it is complete."""
        self._file.close()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
