"""The lines that could not be stored: set aside with the reason, and put back by an operator.

`rejected.jsonl` lies in the folder of the spool and counts in its largest size. No line in it is
ever dropped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import orjson

from analytics.log.records import decode
from analytics.log.segments import (
    SEGMENT_BYTES,
    TEMP_SUFFIX,
    lock,
    new_segment,
    try_lock,
)
from core.atomic_file import fsync_folder
from core.private_files import open_private, open_regular
from core.unreadable import UNREADABLE

REJECTED = "rejected.jsonl"
# A lock of its own, because `put_back` replaces the file.
_LOCK = "rejected.lock"
# As long as PredictionsRejected in monitoring/rules looks back.
LATELY_SECONDS = 3_600.0


@dataclass(frozen=True, slots=True)
class PutBack:
    """The result of `put_back`: lines that wait for PostgreSQL again, and lines that stay."""

    lines: int
    unreadable: int


def set_aside(folder: Path, line: bytes, reason: str) -> None:
    """Append a line and its reason to `rejected.jsonl`; it survives a power cut.

    Raises:
        OSError: the disk refuses it; nothing was written.
    """
    row = {"at": datetime.now(UTC), "reason": reason, "line": line.decode("latin-1")}
    with _locked(folder), _opened(folder / REJECTED) as file:
        _append(file, orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def rejected_bytes(folder: Path) -> int:
    """The size of `rejected.jsonl`."""
    with suppress(OSError):
        return (folder / REJECTED).stat().st_size
    return 0


def count_rejected(folder: Path) -> int:
    """The number of lines in `rejected.jsonl`."""
    with suppress(OSError), open(folder / REJECTED, "rb", opener=open_regular) as rows:
        return sum(1 for _ in rows)
    return 0


def has_rejected_lately(folder: Path) -> bool:
    """Whether a line was set aside within the last hour and is still there."""
    with suppress(OSError):
        state = (folder / REJECTED).stat()
        return state.st_size > 0 and time.time() - state.st_mtime < LATELY_SECONDS
    return False


def rejected_lines(folder: Path) -> Iterator[bytes]:
    """The lines in `rejected.jsonl` that this release can read."""
    with suppress(OSError), open(folder / REJECTED, "rb", opener=open_regular) as rows:
        yield from filter(None, map(_readable_line, rows))


def put_back(folder: Path) -> PutBack:
    """Make segments of the rejected lines, so that the shipper tries them once more.

    Lines that this release cannot read stay. A kill in between leaves lines in both places; the
    writer skips those that PostgreSQL has.

    Raises:
        OSError: the disk refuses the segments; `rejected.jsonl` is as it was.
    """
    path = folder / REJECTED
    if not path.exists():
        return PutBack(0, 0)
    waiting: list[bytes] = []
    waiting_bytes = lines = unreadable = 0
    remaining = path.with_suffix(TEMP_SUFFIX)
    with ExitStack() as opened:
        opened.enter_context(_locked(folder))
        if not path.exists():  # another command has done it meanwhile
            return PutBack(0, 0)
        staying = opened.enter_context(_opened(remaining))
        rows = opened.enter_context(path.open("rb"))
        # A spool that starts removes temporary files that are not locked.
        try_lock(staying)
        staying.truncate(0)
        for row in rows:
            line = _readable_line(row)
            if line is None:
                _append(staying, row)
                unreadable += 1
                continue
            lines += 1
            waiting.append(line)
            waiting_bytes += len(line)
            if waiting_bytes >= SEGMENT_BYTES:
                _write_segment(folder, waiting)
                waiting, waiting_bytes = [], 0
        if waiting:
            _write_segment(folder, waiting)
        modified = path.stat().st_mtime
        os.utime(remaining, (modified, modified))
        remaining.replace(path)
        if not unreadable:
            path.unlink()
        fsync_folder(folder)
    return PutBack(lines, unreadable)


def _readable_line(row: bytes) -> bytes | None:
    """The line of a row of `rejected.jsonl`, None if it is no line of the log."""
    try:
        line: bytes = orjson.loads(row)["line"].encode("latin-1")
        decode(line)
    except (*UNREADABLE, ValueError, TypeError, LookupError, AttributeError):
        return None
    return line + b"\n"


def _write_segment(folder: Path, lines: Sequence[bytes]) -> None:
    """Write a complete segment."""
    path = new_segment(folder, datetime.now(UTC))
    temporary = path.with_suffix(TEMP_SUFFIX)
    with _opened(temporary) as file:
        # A locked file is not removed as a temporary file of a dead process.
        try_lock(file)
        try:
            _append(file, b"".join(lines))
            temporary.rename(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def _append(file: IO[bytes], data: bytes) -> None:
    """Append all of `data` or nothing, on a line of its own."""
    size = file.seek(0, os.SEEK_END)
    if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
        data = b"\n" + data  # the machine stopped within the last line
    unwritten = memoryview(data)
    try:
        while unwritten:
            unwritten = unwritten[file.write(unwritten) :]
        os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            file.truncate(size)
        raise


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with open(path, "a+b", buffering=0, opener=open_private) as file:
        yield file


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time change `rejected.jsonl`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _opened(folder / _LOCK) as file:
        lock(file)
        yield
