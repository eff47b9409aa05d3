"""The output and its progress on disk, so that a killed run can be resumed.

While OUT is being written, there are three files beside it:

* OUT.partial: becomes OUT at the end;
* OUT.rejected.jsonl: the rows that were not scored; stays if there are any;
* OUT.progress: how many bytes of both files are valid, and how far the input was read.

All of them hold texts, so only their owner may read them.

The bytes are on disk before the progress that counts them. A killed run may have written more
bytes; the next run cuts them off.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec.structs import replace

from core.atomic_file import fsync_path
from core.private_files import make_private
from core.unreadable import UNREADABLE
from datafiles.chunks import Position

_RESTART = "use --restart to begin again"
# The bytes at the beginning and at the end of the input that identify it.
_DIGESTED_BYTES = 1 << 20


class CannotResume(RuntimeError):
    """The files cannot be resumed; the message says why.

    `changed` are the properties of the job that differ from those of the interrupted run.
    """

    def __init__(self, message: str, changed: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.changed = tuple(changed)


class Progress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The valid bytes of the files, how far the input was read, and the identity of the job."""

    # The name of earlier releases in the file.
    identity: dict[str, Any] = msgspec.field(name="about")
    end: Position
    output_bytes: int = 0
    rejected_bytes: int = 0
    scored: int = 0
    rejected: int = 0
    is_complete: bool = False


class Journal(AbstractContextManager["Journal"]):
    """The files of an output that is being written, locked for one process."""

    def __init__(self, out: Path, identity: dict[str, Any], *, restart: bool) -> None:
        """Begin an output, or resume an interrupted run.

        Raises:
            CannotResume: `out` exists already, another input or other options began it, or another
                process is writing it.
        """
        self._out = out
        self._partial = _beside(out, ".partial")
        self._rejects = _beside(out, ".rejected.jsonl")
        self._progress_file = _beside(out, ".progress")
        make_private(self._partial)
        self._lock = self._partial.open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise CannotResume(f"another process is writing {out}") from error
        try:
            self.progress = self._start(identity, restart=restart)
            self._files = self._open_files()
        except BaseException:
            if not (self._progress_file.exists() or self._partial.stat().st_size):
                self._partial.unlink()
            self._lock.close()
            raise

    def __exit__(self, *error: object) -> None:
        for file in (*self._files, self._lock):
            # A write error was raised when it occurred.
            with suppress(OSError):
                file.close()

    def append(self, output: Iterable[bytes], rejects: Iterable[bytes], progress: Progress) -> None:
        """Append to both files, and save `progress` with their new sizes."""
        written = [
            _append(file, pieces)
            for file, pieces in zip(self._files, (output, rejects), strict=True)
        ]
        output_bytes = self.progress.output_bytes + written[0]
        rejected_bytes = self.progress.rejected_bytes + written[1]
        self._save(replace(progress, output_bytes=output_bytes, rejected_bytes=rejected_bytes))

    def finish(self, convert: Callable[[Path, Path], None] | None) -> None:
        """Rename the output to its final name, after `convert` has converted it."""
        if not self.progress.is_complete:
            self._save(replace(self.progress, is_complete=True))
        if convert is not None and self._partial.stat().st_size:
            converted = _beside(self._out, ".converting")
            make_private(converted)
            convert(self._partial, converted)
            _rename(converted, self._out)
            self._partial.unlink()
        elif self.progress.output_bytes == self._partial.stat().st_size:
            _rename(self._partial, self._out)
        else:  # an earlier run has renamed it already
            self._partial.unlink()
        if not self.progress.rejected_bytes:
            self._rejects.unlink(missing_ok=True)
        self._progress_file.unlink()
        fsync_path(self._out.parent)

    def _start(self, identity: dict[str, Any], *, restart: bool) -> Progress:
        if restart:
            self._progress_file.unlink(missing_ok=True)
        elif self._progress_file.exists():
            return self._read(identity)
        elif self._out.exists():
            raise CannotResume(f"{self._out} exists already; {_RESTART}")
        self._save(Progress(identity, Position()))
        return self.progress

    def _read(self, identity: dict[str, Any]) -> Progress:
        try:
            progress = msgspec.json.decode(self._progress_file.read_bytes(), type=Progress)
        except UNREADABLE as error:
            raise CannotResume(f"{self._progress_file} cannot be read; {_RESTART}") from error
        if progress.identity != identity:
            names = {*identity, *progress.identity}
            changed = sorted(n for n in names if progress.identity.get(n) != identity.get(n))
            raise CannotResume(
                f"{self._out} was begun with other values of: {', '.join(changed)}. Use the same "
                f"values, or {_RESTART}",
                changed,
            )
        for path, size in self._valid_bytes(progress):
            actual = path.stat().st_size if path.exists() else 0
            if actual < size and not (progress.is_complete and self._out.exists()):
                raise CannotResume(f"{path} is shorter than {self._progress_file} says; {_RESTART}")
        return progress

    def _open_files(self) -> list[BinaryIO]:
        files: list[BinaryIO] = []
        for path, size in self._valid_bytes(self.progress):
            if path.exists() and path.stat().st_size > size:
                os.truncate(path, size)
            make_private(path)
            files.append(path.open("ab"))
        return files

    def _valid_bytes(self, progress: Progress) -> list[tuple[Path, int]]:
        return [(self._partial, progress.output_bytes), (self._rejects, progress.rejected_bytes)]

    def _save(self, progress: Progress) -> None:
        new = _beside(self._progress_file, ".new")
        make_private(new)
        new.write_bytes(msgspec.json.encode(progress))
        _rename(new, self._progress_file)
        self.progress = progress


def _append(file: BinaryIO, pieces: Iterable[bytes]) -> int:
    """Append to a file, which is on the disk then; the bytes."""
    written = sum(map(file.write, pieces))
    file.flush()
    if written:
        os.fsync(file.fileno())
    return written


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _rename(new: Path, path: Path) -> None:
    fsync_path(new)
    new.replace(path)
    fsync_path(path.parent)


def file_identity(path: Path) -> str:
    """The size, time and ends of a file: reading all of it would take minutes."""
    status = path.stat()
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(_DIGESTED_BYTES))
        file.seek(max(0, status.st_size - _DIGESTED_BYTES))
        digest.update(file.read(_DIGESTED_BYTES))
    return f"{status.st_size} bytes of {status.st_mtime_ns}, {digest.hexdigest()}"
