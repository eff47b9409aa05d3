"""The jobs of this host: a folder each below DATA_FOLDER/jobs, which only the service may read.

    <id>/job.json      the request; a folder with one is a job
    <id>/status.json   how far it is
    <id>/input         the uploaded file, until the job has ended
    <id>/result.csv    the output, with the files of scoring/journal.py beside it
    .upload-…/         an upload that has not come whole; the name has a hash of its caller's
    .gone-…/           a job that is being removed

All API processes of the host read these files. One of them writes the status: see job_runner.py.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import msgspec

from core.atomic_file import write_atomically
from core.errors import JobNotFound, RateLimited, ServiceError, StorageFull, invalid_field
from core.jobs import JobRequest
from core.private_files import FOLDER_MODE, make_private
from core.unreadable import UNREADABLE
from core.uuid7 import new_id
from scoring.job import open_job
from scoring.job_faults import ShareUsed
from scoring.stored_job import StoredJob, job_of, result_in

UPLOAD, GONE = ".upload-", ".gone-"
# An upload that has not grown for so long is left over from a process that died.
LEFT_OVER_SECONDS = 3_600.0
# All jobs of one caller may use this part of what all jobs may.
CALLER_SHARE = 0.5
# A caller may have so many jobs that have not ended.
MAX_UNFINISHED = 20
# Jobs leave so much of a disk to others, or this part of a small one: without room for the
# prediction log every prediction is refused.
KEPT_FREE_BYTES = 512 << 20
KEPT_FREE_PART = 8
# And so many in all: each has files of its own until it is removed, however small it is.
MAX_KEPT = 1_000


class _Known(NamedTuple):
    """A folder as it was read; `mark` changes when a file comes into it or goes."""

    mark: tuple[int, int]
    job: StoredJob
    ended_bytes: int | None  # of a job that has ended


class JobStore:
    """Makes, finds and removes jobs. Its methods block, and may be called in any thread."""

    def __init__(
        self,
        folder: Path,
        *,
        input_folders: Sequence[Path] = (),
        max_bytes: int,
        retention: timedelta,
        kept_free_bytes: int = KEPT_FREE_BYTES,
        kept_free_part: int = KEPT_FREE_PART,
    ) -> None:
        """`max_bytes` bounds all files of all jobs; `retention` is the time from a job's end.

        Of the disk `kept_free_bytes` are left to others, or one part of `kept_free_part`.
        """
        self.folder = folder
        self._input_folders = input_folders
        self._max_bytes = max_bytes
        self._retention = retention
        self._kept_free = kept_free_bytes, kept_free_part
        # By the names of folders. Jobs are looked at each second, and thousands may have ended.
        self._known: dict[str, _Known] = {}

    def new_upload(self, owner: str) -> Path:
        """Make an empty file for an upload of a caller, in a folder of its own.

        Raises:
            StorageFull: jobs, or those of this caller, may use no more of the disk.
            OSError: it cannot be made.
        """
        self.folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
        self.check_room(owner=owner)
        folder = self.folder / f"{_uploads_of(owner)}{new_id(datetime.now(UTC))}"
        folder.mkdir(FOLDER_MODE)
        upload = folder / "input"
        make_private(upload)
        return upload

    def drop_upload(self, upload: Path) -> None:
        shutil.rmtree(upload.parent, ignore_errors=True)

    def add(self, request: JobRequest, upload: Path | None) -> None:
        """Store a job, which is on disk when this returns.

        Raises:
            InvalidInput: the file cannot be scored.
            InvalidRequest: there is no such file.
            StorageFull: jobs, or those of this caller, may use no more of the disk.
            RateLimited: too many of this caller's have not ended.
            ModuleNotFoundError: pyarrow is not installed, and the file needs it.
            OSError: it cannot be stored.
        """
        source = upload or self.resolve(request.path or "")
        folder = (upload or self.new_upload(request.owner)).parent
        try:
            open_job(job_of(request, source, result_in(folder, request), restart=False))
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if upload is None:
            (folder / "input").unlink()
        else:
            _sync(upload)
        write_atomically(folder / "job.json", msgspec.json.encode(request))
        _sync(folder / "job.json")
        _sync(folder)
        stored = self.folder / str(request.id)
        try:
            # Those that other requests add at the same time, in any process, count as well.
            with self._locked():
                if not stored.exists():
                    self.check_number(request.owner)
                    self.check_room(owner=request.owner)
                folder.rename(stored)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            # The same request came twice at once, with an Idempotency-Key.
            shutil.rmtree(folder, ignore_errors=True)
        except ServiceError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        _sync(self.folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other threads and processes from adding a job meanwhile."""
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

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
        for entry, mark in self._folders():
            before = self._known.get(entry.name)
            if before is not None and before.mark == mark:
                known[entry.name] = before
            elif (job := self._read(Path(entry.path))) is not None:
                ended_bytes = None if job.ended is None else _bytes_in(entry.path)
                known[entry.name] = _Known(mark, job, ended_bytes)
        self._known = known
        return sorted((each.job for each in known.values()), key=lambda job: job.request.created_at)

    def remove(self, job: StoredJob) -> None:
        """Remove a job with all its files. A job that runs notices it, and stops."""
        gone = job.folder.with_name(f"{GONE}{new_id(datetime.now(UTC))}")
        with suppress(FileNotFoundError):
            job.folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def resolve(self, name: str) -> Path:
        """The regular file that `name` means in one of the allowed folders.

        Raises:
            InvalidRequest: there is none; links out of the folder do not count.
        """
        with suppress(OSError, ValueError):
            for folder in self._input_folders:
                root = folder.resolve(strict=True)
                file = (root / name).resolve(strict=True)
                if file.is_relative_to(root) and file.is_file():
                    return file
        raise invalid_field("path", "is no file in one of the folders that JOB_FOLDERS allows")

    def check_room(self, more_bytes: int = 0, *, owner: str | None = None) -> None:
        """Check the room for more bytes, of the uploads and jobs of `owner` if that is given.

        Raises:
            StorageFull: jobs, or those of `owner`, may use no more of the disk.
            OSError: as `check_disk`.
        """
        self.check_disk()
        used = self._used_bytes() + more_bytes
        if used > self._max_bytes:
            raise StorageFull(self._no_room, retry_after_seconds=60)
        if owner is not None and used > self._most_of_caller:
            own = more_bytes + self._bytes_of_jobs(owner) + self._bytes_of_uploads(owner)
            if own > self._most_of_caller:
                raise StorageFull(self._no_share, retry_after_seconds=60)

    def check_disk(self) -> None:
        """Check that the disk has room beside jobs, for the prediction log and PostgreSQL.

        Raises:
            OSError: ENOSPC, it has little.
        """
        disk = shutil.disk_usage(self.folder)
        kept_bytes, part = self._kept_free
        if disk.free < min(kept_bytes, disk.total // part):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))

    def check_growth(self, owner: str) -> None:
        """Check that a job of a caller, which runs, may go on. Its uploads do not end its jobs.

        Raises:
            ShareUsed: it has to end: the jobs of its caller use all that they may, or those that
                have not ended use all there is, so that each would wait for the others for ever.
            StorageFull: it can go on when others are removed.
            OSError: as `check_disk`.
        """
        self.check_disk()
        used = self._used_bytes()
        if used <= self._most_of_caller:
            return  # nor does any caller use more
        if self._bytes_of_jobs(owner) > self._most_of_caller:
            raise ShareUsed(self._no_share)
        if used > self._max_bytes:
            unfinished = [job for job in self.jobs() if not job.status().is_finished]
            if sum(_bytes_in(str(job.folder)) for job in unfinished) > self._max_bytes:
                raise ShareUsed(self._no_room)
            raise StorageFull(self._no_room, retry_after_seconds=60)

    def check_number(self, owner: str) -> None:
        """Check that a caller may have one more job.

        Raises:
            RateLimited: too many of its jobs have not ended.
            StorageFull: it has too many in all.
        """
        own = [job for job in self.jobs() if job.request.owner == owner]
        if sum(not job.status().is_finished for job in own) >= MAX_UNFINISHED:
            raise RateLimited(
                f"A caller may have {MAX_UNFINISHED} jobs that have not ended",
                retry_after_seconds=60,
            )
        if len(own) >= MAX_KEPT:
            raise StorageFull(
                f"A caller may have {MAX_KEPT:,} jobs; delete some that have ended, or wait until "
                "they are removed",
                retry_after_seconds=60,
            )

    def _used_bytes(self) -> int:
        return sum(self._bytes_of(entry, mark) for entry, mark in self._folders(hidden=True))

    def _bytes_of_jobs(self, owner: str) -> int:
        own = [job.folder for job in self.jobs() if job.request.owner == owner]
        return sum(_bytes_in(str(folder)) for folder in own)

    def _bytes_of_uploads(self, owner: str) -> int:
        own = self.folder.glob(f"{_uploads_of(owner)}*")
        return sum(_bytes_in(str(folder)) for folder in own)

    @property
    def _most_of_caller(self) -> int:
        return int(self._max_bytes * CALLER_SHARE)

    @property
    def _no_room(self) -> str:
        return (
            f"All jobs of this host may use {self._max_bytes:,} bytes; delete jobs that have "
            "ended, or wait until they are removed"
        )

    @property
    def _no_share(self) -> str:
        return (
            f"All jobs of a caller may use {self._most_of_caller:,} bytes of this host; delete "
            "jobs that have ended, or wait until they are removed"
        )

    def sweep(self) -> None:
        """Remove jobs that ended long ago, and what dead processes have left."""
        oldest_end = datetime.now(UTC) - self._retention
        for job in self.jobs():
            finished_at = job.status().finished_at
            if finished_at is not None and finished_at < oldest_end:
                self.remove(job)
        with suppress(FileNotFoundError):
            for folder in self.folder.iterdir():
                is_job = (folder / "job.json").exists() and not folder.name.startswith(".")
                if folder.is_dir() and not is_job and _age_seconds(folder) > LEFT_OVER_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)

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
        return _bytes_in(entry.path)


def _uploads_of(owner: str) -> str:
    """How the names of the folders of a caller's uploads begin."""
    return f"{UPLOAD}{blake2b(owner.encode(), digest_size=8).hexdigest()}-"


def _bytes_in(path: str) -> int:
    """The size of a file, or of all files in a folder."""
    if not os.path.isdir(path):  # noqa: PTH112  a Path for each would take as long as the rest
        return _size(Path(path))
    return sum(_size(Path(folder, name)) for folder, _, names in os.walk(path) for name in names)


def _size(file: Path) -> int:
    try:
        return file.lstat().st_size
    except FileNotFoundError:
        return 0


def _age_seconds(folder: Path) -> float:
    """The time since anything in a folder changed."""
    times = [time.time()]
    with suppress(FileNotFoundError):
        times = [path.stat().st_mtime for path in (folder, *folder.iterdir())]
    return time.time() - max(times)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
