"""Reads the folders of the jobs of this host, and the sizes of what is in them."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import msgspec

from core.errors import JobNotFound
from core.jobs import JobRequest
from core.unreadable import UNREADABLE
from scoring.stored_job import StoredJob

SETTLED_NS = 1_000_000_000
UPLOAD, GONE = ".upload-", ".gone-"


class _Known(NamedTuple):
    """A folder as it was read; `mark` changes when a file comes into it or goes."""

    mark: tuple[int, int]
    job: StoredJob
    ended_bytes: int | None  # of a job that has ended
    is_settled: bool  # whether a change since then would show in the mark


class JobFolders:
    """What is below the folder of jobs. Its methods block, and may be called in any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # By the names of folders. Jobs are looked at each second, and thousands may have ended.
        self._known: dict[str, _Known] = {}

    def find(self, id_: str) -> StoredJob:
        """The job of an id.

        Raises:
            JobNotFound: this host has none.
        """
        with suppress(ValueError):
            job = self._read(self.folder / str(UUID(id_)))
            if job is not None:
                return job
        raise JobNotFound

    def jobs(self) -> list[StoredJob]:
        """All jobs, the oldest first."""
        known = {}
        # What changes a folder once more within a tick of the kernel's clock leaves its mark as it
        # is, so a mark that is younger than this tells nothing (as in git's index).
        settled_ns = time.time_ns() - SETTLED_NS
        for entry, mark in self._folders():
            before = self._known.get(entry.name)
            if before is not None and before.mark == mark and before.is_settled:
                known[entry.name] = before
            elif (job := self._read(Path(entry.path))) is not None:
                is_final = job.ended is not None and mark[1] < settled_ns
                ended_bytes = bytes_in(entry.path) if is_final else None
                known[entry.name] = _Known(mark, job, ended_bytes, mark[1] < settled_ns)
        self._known = known
        return sorted((each.job for each in known.values()), key=lambda job: job.request.created_at)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other threads and processes from adding a job meanwhile."""
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def used_bytes(self) -> int:
        return sum(self._bytes_of(entry, mark) for entry, mark in self._folders(hidden=True))

    def bytes_of_jobs(self, owner: str) -> int:
        own = [job.folder for job in self.jobs() if job.request.owner == owner]
        return sum(bytes_in(str(folder)) for folder in own)

    def bytes_of_uploads(self, owner: str) -> int:
        own = self.folder.glob(f"{uploads_of(owner)}*")
        return sum(bytes_in(str(folder)) for folder in own)

    def _read(self, folder: Path) -> StoredJob | None:
        """The job in a folder; None without one, or if another user may have put it there."""
        try:
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                return None
            content = (folder / "job.json").read_bytes()
            job = StoredJob(folder, msgspec.json.decode(content, type=JobRequest))
        except (*UNREADABLE, FileNotFoundError, NotADirectoryError):
            return None
        status = job.status()
        return replace(job, ended=status) if status.is_finished else job

    def _folders(
        self, *, hidden: bool = False
    ) -> Iterator[tuple[os.DirEntry[str], tuple[int, int]]]:
        """The folders of jobs with their marks; `hidden` also those of uploads and removed jobs."""
        with suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                if hidden or not entry.name.startswith("."):
                    with suppress(FileNotFoundError):
                        found = entry.stat(follow_symlinks=False)
                        yield entry, (found.st_ino, found.st_mtime_ns)

    def _bytes_of(self, entry: os.DirEntry[str], mark: tuple[int, int]) -> int:
        known = self._known.get(entry.name)
        if known is not None and known.mark == mark and known.ended_bytes is not None:
            return known.ended_bytes
        return bytes_in(entry.path)


def uploads_of(owner: str) -> str:
    """How the names of the folders of a caller's uploads begin."""
    return f"{UPLOAD}{blake2b(owner.encode(), digest_size=8).hexdigest()}-"


def bytes_in(path: str) -> int:
    """The size of a file, or of all files in a folder."""
    if not os.path.isdir(path):  # noqa: PTH112  a Path for each would take as long as the rest
        return _size(Path(path))
    return sum(_size(Path(folder, name)) for folder, _, names in os.walk(path) for name in names)


def _size(file: Path) -> int:
    try:
        return file.lstat().st_size
    except FileNotFoundError:
        return 0
