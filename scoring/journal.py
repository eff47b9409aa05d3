"""Keeps an output and its progress such that a run can be killed at any moment and gone on with.

Beside OUT there are, while it is being written:

* OUT.partial: what becomes OUT when all of it is there;
* OUT.rejected.jsonl: the rows that were not scored, which stays if there are any;
* OUT.progress: how many bytes of both are valid, and how far the input was read for them.

The bytes are on disk before the progress that tells of them. What is behind them was written by a
run that was killed, and is cut off.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import orjson

from scoring.chunks import Position

_RESTART = "--restart begins anew"


class CannotResume(RuntimeError):
    """What is there cannot be gone on with, and why."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What of the files is valid, how far the input was read, and what it was read for."""

    about: Mapping[str, object]
    end: Position = field(default_factory=Position)
    output_bytes: int = 0
    rejected_bytes: int = 0
    scored: int = 0
    rejected: int = 0
    is_complete: bool = False


class Journal:
    """One output being written. Only one process can hold it."""

    def __init__(self, out: Path, about: Mapping[str, object], *, restart: bool) -> None:
        """Begin, or go on where another run ended.

        Raises:
            CannotResume: `out` is there already, or was begun of another input or by other options,
                or another process is at it.
        """
        self._out = out
        self._partial = _beside(out, ".partial")
        self._rejects = _beside(out, ".rejected.jsonl")
        self._told = _beside(out, ".progress")
        self._lock = _locked(self._partial, out)
        try:
            self.progress = self._found(about, restart=restart)
            self._files = self._opened()
        except BaseException:
            if not (self._told.exists() or self._partial.stat().st_size):
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
            # What could not be written before cannot be written now; it was told then.
            with suppress(OSError):
                file.close()

    def append(self, output: bytes, rejects: bytes, progress: Progress) -> None:
        """Add to both files; from now on a run goes on behind that.

        Of `progress`, the sizes of the files are filled in here.
        """
        for file, more in zip(self._files, (output, rejects), strict=True):
            file.write(more)
            file.flush()
            if more:
                os.fsync(file.fileno())
        self._tell(
            replace(
                progress,
                output_bytes=self.progress.output_bytes + len(output),
                rejected_bytes=self.progress.rejected_bytes + len(rejects),
            )
        )

    def finish(self, convert: Callable[[Path, Path], None] | None) -> None:
        """Give the output its name; `convert` makes another file of it first."""
        if not self.progress.is_complete:
            self._tell(replace(self.progress, is_complete=True))
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
        else:  # it has its name already
            self._partial.unlink()
        if not self.progress.rejected_bytes:
            self._rejects.unlink(missing_ok=True)
        self._told.unlink()
        _sync(self._out.parent)

    def _found(self, about: Mapping[str, object], *, restart: bool) -> Progress:
        if restart:
            self._told.unlink(missing_ok=True)
        elif self._told.exists():
            return self._read(about)
        elif self._out.exists():
            raise CannotResume(f"{self._out} is there already; {_RESTART}")
        begun = Progress(about)
        self._tell(begun)
        return begun

    def _read(self, about: Mapping[str, object]) -> Progress:
        try:
            told = orjson.loads(self._told.read_bytes())
            progress = Progress(**{**told, "end": Position(**told["end"])})
        except (ValueError, TypeError, KeyError) as error:
            raise CannotResume(f"{self._told} cannot be read; {_RESTART}") from error
        if progress.about != about:
            names = {*about, *progress.about}
            other = sorted(n for n in names if progress.about.get(n) != about.get(n))
            raise CannotResume(
                f"{self._out} was begun with another {', '.join(other)}; take that, or {_RESTART}"
            )
        for path, size in (
            (self._partial, progress.output_bytes),
            (self._rejects, progress.rejected_bytes),
        ):
            there = path.stat().st_size if path.exists() else 0
            if there < size and not (progress.is_complete and self._out.exists()):
                raise CannotResume(f"{path} lacks what {self._told} tells of; {_RESTART}")
        return progress

    def _opened(self) -> tuple[BinaryIO, BinaryIO]:
        sizes = (self.progress.output_bytes, self.progress.rejected_bytes)
        files: list[BinaryIO] = []
        for path, size in zip((self._partial, self._rejects), sizes, strict=True):
            if path.exists() and path.stat().st_size > size:
                os.truncate(path, size)
            files.append(path.open("ab"))
        return files[0], files[1]

    def _tell(self, progress: Progress) -> None:
        new = _beside(self._told, ".new")
        new.write_bytes(orjson.dumps(asdict(progress)))
        _sync(new)
        new.replace(self._told)
        _sync(self._told.parent)
        self.progress = progress


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _locked(path: Path, out: Path) -> BinaryIO:
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise CannotResume(f"another process writes {out}") from error
    return file


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
