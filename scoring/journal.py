"""The output and its progress on disk, so that a killed run can be resumed.

While OUT is being written, there are three files beside it:

* OUT.partial: becomes OUT at the end;
* OUT.rejected.jsonl: the rows that were not scored; stays if there are any;
* OUT.progress: how many bytes of both files are valid, and how far the input was read.

The bytes are on disk before the progress that counts them. A killed run may have written more
bytes; the next run cuts them off.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import orjson

from scoring.chunks import Position

_RESTART = "use --restart to begin again"
# The key of `Progress.identity` in the progress file; earlier releases wrote it too.
_IDENTITY_KEY = "about"
# The bytes at the beginning and at the end of the input that identify it.
_DIGESTED_BYTES = 1 << 20


class CannotResume(RuntimeError):
    """The files cannot be resumed; the message says why."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The valid bytes of the files, how far the input was read, and the identity of the job."""

    identity: Mapping[str, object]
    end: Position = field(default_factory=Position)
    output_bytes: int = 0
    rejected_bytes: int = 0
    scored: int = 0
    rejected: int = 0
    is_complete: bool = False


class Journal:
    """The files of an output that is being written, locked for one process."""

    def __init__(self, out: Path, identity: Mapping[str, object], *, restart: bool) -> None:
        """Begin an output, or resume an interrupted run.

        Raises:
            CannotResume: `out` exists already, another input or other options began it, or another
                process is writing it.
        """
        self._out = out
        self._partial = _beside(out, ".partial")
        self._rejects = _beside(out, ".rejected.jsonl")
        self._progress_file = _beside(out, ".progress")
        self._lock = _locked(self._partial, out)
        try:
            self.progress = self._start(identity, restart=restart)
            self._files = self._open_files()
        except BaseException:
            if not (self._progress_file.exists() or self._partial.stat().st_size):
                self._partial.unlink()
            self._lock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in (*self._files, self._lock):
            # A write error was raised when it occurred.
            with suppress(OSError):
                file.close()

    def append(self, output: bytes, rejects: bytes, progress: Progress) -> None:
        """Append to both files, and save `progress` with their new sizes."""
        for file, content in zip(self._files, (output, rejects), strict=True):
            file.write(content)
            file.flush()
            if content:
                os.fsync(file.fileno())
        self._save(
            replace(
                progress,
                output_bytes=self.progress.output_bytes + len(output),
                rejected_bytes=self.progress.rejected_bytes + len(rejects),
            )
        )

    def finish(self, convert: Callable[[Path, Path], None] | None) -> None:
        """Rename the output to its final name, after `convert` has converted it."""
        if not self.progress.is_complete:
            self._save(replace(self.progress, is_complete=True))
        if convert is not None and self._partial.stat().st_size:
            converted = _beside(self._out, ".converting")
            convert(self._partial, converted)
            _sync(converted)
            converted.replace(self._out)
            _sync(self._out.parent)
            self._partial.unlink()
        elif self.progress.output_bytes == self._partial.stat().st_size:
            self._partial.replace(self._out)
            _sync(self._out.parent)
        else:  # an earlier run has renamed it already
            self._partial.unlink()
        if not self.progress.rejected_bytes:
            self._rejects.unlink(missing_ok=True)
        self._progress_file.unlink()
        _sync(self._out.parent)

    def _start(self, identity: Mapping[str, object], *, restart: bool) -> Progress:
        if restart:
            self._progress_file.unlink(missing_ok=True)
        elif self._progress_file.exists():
            return self._read(identity)
        elif self._out.exists():
            raise CannotResume(f"{self._out} exists already; {_RESTART}")
        progress = Progress(identity)
        self._save(progress)
        return progress

    def _read(self, identity: Mapping[str, object]) -> Progress:
        try:
            fields = orjson.loads(self._progress_file.read_bytes())
            written_for, end = fields.pop(_IDENTITY_KEY), Position(**fields.pop("end"))
            progress = Progress(written_for, end, **fields)
        except (ValueError, TypeError, KeyError) as error:
            raise CannotResume(f"{self._progress_file} cannot be read; {_RESTART}") from error
        if progress.identity != identity:
            names = {*identity, *progress.identity}
            changed = sorted(n for n in names if progress.identity.get(n) != identity.get(n))
            raise CannotResume(
                f"{self._out} was begun with other values of: {', '.join(changed)}. Use the same "
                f"values, or {_RESTART}"
            )
        for path, size in (
            (self._partial, progress.output_bytes),
            (self._rejects, progress.rejected_bytes),
        ):
            actual = path.stat().st_size if path.exists() else 0
            if actual < size and not (progress.is_complete and self._out.exists()):
                raise CannotResume(f"{path} is shorter than {self._progress_file} says; {_RESTART}")
        return progress

    def _open_files(self) -> tuple[BinaryIO, BinaryIO]:
        sizes = (self.progress.output_bytes, self.progress.rejected_bytes)
        files: list[BinaryIO] = []
        for path, size in zip((self._partial, self._rejects), sizes, strict=True):
            if path.exists() and path.stat().st_size > size:
                os.truncate(path, size)
            files.append(path.open("ab"))
        return files[0], files[1]

    def _save(self, progress: Progress) -> None:
        new = _beside(self._progress_file, ".new")
        fields = asdict(progress)
        fields[_IDENTITY_KEY] = fields.pop("identity")
        new.write_bytes(orjson.dumps(fields))
        _sync(new)
        new.replace(self._progress_file)
        _sync(self._progress_file.parent)
        self.progress = progress


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _locked(path: Path, out: Path) -> BinaryIO:
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise CannotResume(f"another process is writing {out}") from error
    return file


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_identity(path: Path) -> str:
    """The size, time and ends of a file: reading all of it would take minutes."""
    status = path.stat()
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(_DIGESTED_BYTES))
        file.seek(max(0, status.st_size - _DIGESTED_BYTES))
        digest.update(file.read(_DIGESTED_BYTES))
    return f"{status.st_size} bytes of {status.st_mtime_ns}, {digest.hexdigest()}"
