"""Appends lines to a spool in a thread, with one write for all lines that wait."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Literal, NamedTuple, ParamSpec

from analytics.log.open_segment import SEGMENT_SECONDS, Durability, OpenSegment, copies_of
from analytics.log.rejected import rejected_bytes
from analytics.log.segments import (
    SEGMENT_BYTES,
    TEMP_SUFFIX,
    count_predictions,
    delete_segment,
    lock,
    new_segment,
    remove_temporary,
    segments,
    size_bytes,
    try_lock,
)
from core import metrics
from core.background import Failures
from core.full_disk import FULL_DISK
from core.private_files import open_private, open_regular

logger = logging.getLogger("bentoml.sentiment.log")

WhenFull = Literal["refuse", "drop_oldest"]
P = ParamSpec("P")

# The files of complete segments stay open until they are shipped, at most so many, so that their
# lines can be written again if the folder is deleted.
MAX_OPEN_SEGMENTS = 128
CHECK_BYTES = 4_096
# The folder is counted so many times while a process fills it: the others fill it too.
COUNTS = 64
_DROP_LOCK = "drop.lock"


class SpoolFull(Exception):
    """The spool holds `max_bytes`."""


class _Append(NamedTuple):
    line: bytes
    done: asyncio.Future[None]


class _Check(NamedTuple):
    needed_bytes: int
    sync: bool
    done: asyncio.Future[None]


class Spool:
    """Writes the segments of one process into a folder that other processes may share.

    A folder that is deleted meanwhile is made again, with every line that was not shipped: the
    files are still open.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        durability: Durability,
        when_full: WhenFull,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """`max_bytes` bounds all files in `folder`: other processes' segments, rejected lines."""
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._when_full: WhenFull = when_full
        self._max_bytes = max_bytes
        self._durability: Durability = durability
        self._bytes = 0  # in the folder at the last count, and added since
        self._uncounted_bytes = 0  # added since
        self._segment: OpenSegment | None = None
        self._complete: list[OpenSegment] = []  # not known to be shipped, the oldest first
        self._looked_at = 0.0
        self._closing = False
        self._queue: SimpleQueue[_Append | _Check | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="spool", daemon=True)

    def start(self) -> None:
        """Make the folder and start the thread. Raises OSError: the folder cannot be written to."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_temporary(self._folder)
        self._count_bytes()
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

    async def check(self, needed_bytes: int, *, sync: bool) -> None:
        """Find out whether `append` would accept a line, without one; `sync` waits for the disk.

        Raises:
            SpoolFull: the spool has no room for `needed_bytes`.
            OSError: the disk refuses a write.
        """
        done = asyncio.get_running_loop().create_future()
        self._queue.put(_Check(needed_bytes, sync, done))
        await done

    async def close(self) -> None:
        """Write the lines that wait and complete the segment."""
        if self._thread.is_alive():
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        failures = Failures("Spool")
        while not self._closing:
            started = time.monotonic()
            try:
                self._work()
            except Exception as error:  # noqa: BLE001  the edge of the thread, which goes on
                time.sleep(failures.add(error, ran_seconds=time.monotonic() - started))
        for segment in self._complete:
            segment.close()

    def _work(self) -> None:
        """Write what waits, and complete the segment if it is due."""
        items = self._next()
        appends = [item for item in items if isinstance(item, _Append) and self._is_wanted(item)]
        if appends:
            error = _error_of(self._write, b"".join(line for line, _ in appends))
            _settle([append.done for append in appends], error)
        for item in items:
            if isinstance(item, _Check):
                _settle([item.done], _error_of(self._check, item))
        if self._segment is not None and not items:
            _error_of(self._restore_if_deleted)  # the next line or check meets the error too
        if self._segment is not None and (
            self._closing
            or self._segment.size >= self._segment_bytes
            or not self._segment.due_in_seconds()
        ):
            self._complete_segment()
        _error_of(self._look_after_complete)

    def _is_wanted(self, item: _Append) -> bool:
        """Whether to write a line: of a request that was refused meanwhile, its repeat has one.

        A spool that drops lines refuses nobody: the request was answered.
        """
        return self._when_full != "refuse" or not item.done.cancelled()

    def _next(self) -> list[_Append | _Check]:
        """The lines and checks that wait; at the end of all, `_closing` is set."""
        timeout_seconds = None
        if self._segment is not None:
            timeout_seconds = self._segment.due_in_seconds()
        elif self._complete:
            timeout_seconds = SEGMENT_SECONDS
        items: list[_Append | _Check] = []
        try:
            item = self._queue.get(timeout=timeout_seconds)
            while item is not None:
                items.append(item)
                item = self._queue.get_nowait()
        except Empty:
            return items
        self._closing = True
        return items

    def _write(self, data: bytes) -> None:
        self._restore_if_deleted()
        self._make_room(len(data))
        try:
            self._append(data)
        except FileNotFoundError:  # the folder was deleted a moment ago
            self._restore_if_deleted()
            self._append(data)
        # The folder may have been deleted during the write. Nothing is acknowledged before its
        # file has its name.
        self._restore_if_deleted()

    def _append(self, data: bytes) -> None:
        while True:
            try:
                if self._segment is None:
                    self._segment = OpenSegment(self._folder, self._durability)
                self._segment.append(data)
            except OSError as error:
                # The segment may hold half a line, so nothing more is written to it.
                if self._segment is not None:
                    self._complete_segment()
                # Another program may take the room of any number of them.
                if error.errno not in FULL_DISK or not self._drop_oldest():
                    raise
            else:
                break
        self._bytes += len(data)
        self._uncounted_bytes += len(data)

    def _check(self, check: _Check) -> None:
        self._restore_if_deleted()
        self._make_room(check.needed_bytes)
        # Not a segment, which the shipper would have to read and delete.
        temporary = new_segment(self._folder, datetime.now(UTC)).with_suffix(TEMP_SUFFIX)
        try:
            with open(temporary, "xb", buffering=0, opener=open_private) as file:
                try_lock(file)
                if file.write(bytes(CHECK_BYTES)) < CHECK_BYTES:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if check.sync and self._durability == "fsync":
                    os.fdatasync(file.fileno())
        finally:
            temporary.unlink(missing_ok=True)

    def _look_after_complete(self) -> None:
        """Close the files of shipped segments, and write deleted ones again; once a second."""
        now = time.monotonic()
        is_due = self._closing or now >= self._looked_at + SEGMENT_SECONDS
        if self._complete and is_due:
            self._looked_at = now
            self._restore_deleted()
            for segment in self._complete[:-MAX_OPEN_SEGMENTS]:
                segment.close()
            del self._complete[:-MAX_OPEN_SEGMENTS]

    def _restore_if_deleted(self) -> None:
        """If the folder or the segment was deleted, write all lines that may be lost again."""
        is_there = self._folder.is_dir() if self._segment is None else self._segment.is_there()
        if not is_there:
            self._restore_deleted()

    def _restore_deleted(self) -> None:
        """Make the folder, and write the lines of segments again that the shipper did not delete.

        Raises:
            OSError: the disk refuses it; the next call tries again.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        written = [*self._complete, *([] if self._segment is None else [self._segment])]
        gone = [segment for segment in written if not segment.is_there()]
        lost = [segment for segment in gone if not segment.is_empty()]
        # The shipper may have stored some of the lines. It stores each prediction once.
        copies = copies_of(lost, self._folder, self._durability)
        for segment in gone:
            segment.close()
        if self._segment in gone:
            self._segment = None
        self._complete = [*(left for left in self._complete if left not in gone), *copies]
        if lost:
            self._count_bytes()
            logger.error(
                "%d segments of %s were deleted; their lines are written again",
                len(lost),
                self._folder,
            )

    def _complete_segment(self) -> None:
        assert self._segment is not None  # noqa: S101
        segment, self._segment = self._segment, None
        self._complete.append(segment)
        segment.complete()

    def _make_room(self, needed: int) -> None:
        # Others write into the folder too, and the shipper deletes.
        if self._uncounted_bytes * COUNTS > self._max_bytes or not self._has_room(needed):
            self._count_bytes()
        if self._has_room(needed):
            return
        if self._when_full == "refuse":
            raise SpoolFull
        # One process at a time, so that each sees what the others have dropped.
        with open(self._folder / _DROP_LOCK, "ab", opener=open_private) as file:
            lock(file)
            self._count_bytes()
            while not self._has_room(needed):
                if not self._drop_oldest():
                    raise SpoolFull
                self._count_bytes()

    def _has_room(self, needed: int) -> bool:
        return self._bytes + needed <= self._max_bytes

    def _count_bytes(self) -> None:
        self._bytes = size_bytes(segments(self._folder)) + rejected_bytes(self._folder)
        self._uncounted_bytes = 0

    def _drop_oldest(self) -> bool:
        """Delete the oldest complete segment; False if `when_full` forbids it or there is none."""
        if self._when_full == "refuse":
            return False
        for path in segments(self._folder):
            try:
                with open(path, "rb", opener=open_regular) as file:
                    if not try_lock(file):
                        continue
                    dropped = count_predictions(file)
                    delete_segment(path)
            except OSError:  # shipped meanwhile, or no file of a spool
                continue
            metrics.log_dropped.inc(dropped)
            logger.error("the spool is full; dropped the oldest %d predictions", dropped)
            return True
        return False


def _error_of(action: Callable[P, None], *args: P.args, **options: P.kwargs) -> Exception | None:
    try:
        action(*args, **options)
    except Exception as error:  # noqa: BLE001  the edge of the thread: the caller gets it
        return error
    return None


def _settle(futures: Sequence[asyncio.Future[None]], error: Exception | None) -> None:
    """Give the outcome to those that wait, in their event loop."""

    def settle() -> None:
        for done in futures:
            if not done.done():  # a client that left has cancelled it
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)

    loop = futures[0].get_loop()
    with contextlib.suppress(RuntimeError):  # the loop is closed: nothing awaits the line
        loop.call_soon_threadsafe(settle)
