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

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from core.atomic_file import fsync_path, write_atomically
from core.errors import invalid_field
from core.jobs import JobRequest
from core.private_files import FOLDER_MODE, make_private
from core.temporary_folders import OWNER, claim, remove_if_abandoned
from core.uuid7 import new_id
from datafiles.watched import opening_watch
from scoring.job import open_job
from scoring.job_folders import GONE, UPLOAD, JobFolders, uploads_of
from scoring.job_room import JobRoom
from scoring.stored_job import StoredJob, job_of, result_in

# What has not changed for so long is left over from a process that died. An upload, which counts
# against its caller, is removed at once: its process holds a lock.
LEFT_OVER_SECONDS = 3_600.0


class JobStore:
    """Makes, finds and removes jobs. Its methods block, and may be called in any thread."""

    def __init__(
        self,
        folders: JobFolders,
        room: JobRoom,
        *,
        input_folders: Sequence[Path] = (),
        retention: timedelta,
    ) -> None:
        """`retention` is the time from a job's end to its removal."""
        self.folder = folders.folder
        self.room = room
        self._folders = folders
        self._input_folders = input_folders
        self._retention = retention
        self._claims: dict[Path, list[int]] = {}  # on the folders of uploads; closed, they end

    def jobs(self) -> list[StoredJob]:
        """All jobs, the oldest first."""
        return self._folders.jobs()

    def find(self, id_: str) -> StoredJob:
        """The job of an id. Raises JobNotFound: this host has none."""
        return self._folders.find(id_)

    def new_upload(self, owner: str) -> Path:
        """Make an empty file for what a caller uploads, in a folder that becomes its job.

        Raises:
            StorageFull: jobs, or those of this caller, may use no more of the disk.
            OSError: it cannot be made.
        """
        self.folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
        self.room.check_bytes(owner=owner)
        folder = self.folder / f"{uploads_of(owner)}{new_id(datetime.now(UTC))}"
        folder.mkdir(FOLDER_MODE)
        upload = folder / "input"
        self._claims[upload] = claim(folder)
        try:
            make_private(upload)
        except OSError:
            self.drop_upload(upload)
            raise
        return upload

    def drop_upload(self, upload: Path) -> None:
        """Remove an upload, unless it has become a job."""
        for descriptor in self._claims.pop(upload, []):
            os.close(descriptor)
        shutil.rmtree(upload.parent, ignore_errors=True)

    def add(self, request: JobRequest, upload: Path) -> bool:
        """Store a job, which is on disk when this returns; False: there is one of its id already.

        Its file is the upload, or the one that it names.

        Raises:
            InvalidInput: the file cannot be scored.
            InvalidRequest: there is no such file.
            StorageFull: jobs, or those of this caller, may use no more of the disk.
            RateLimited: too many of this caller's have not ended.
            ModuleNotFoundError: pyarrow is not installed, and the file needs it.
            OSError: it cannot be stored.
        """
        source = upload if request.path is None else self.resolve(request.path)
        folder = upload.parent
        open_job(job_of(request, source, result_in(folder, request), opening_watch()))
        if request.path is None:
            fsync_path(upload)
        else:
            upload.unlink()
        (folder / OWNER).unlink(missing_ok=True)
        write_atomically(folder / "job.json", msgspec.json.encode(request))
        fsync_path(folder / "job.json")
        fsync_path(folder)
        # Those that other requests add at the same time, in any process, count as well.
        with self._folders.locked():
            stored = self.folder / str(request.id)
            if stored.exists():
                return False
            self.room.check_number(request.owner)
            self.room.check_bytes(owner=request.owner)
            folder.rename(stored)
        fsync_path(self.folder)
        return True

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
        # Until Python 3.12, links that lead in a circle are a RuntimeError.
        with suppress(OSError, ValueError, RuntimeError):
            for folder in self._input_folders:
                root = folder.resolve(strict=True)
                file = (root / name).resolve(strict=True)
                if file.is_relative_to(root) and file.is_file():
                    return file
        raise invalid_field("path", "is no file in one of the folders that JOB_FOLDERS allows")

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
                elif folder.name.startswith(UPLOAD):
                    remove_if_abandoned(folder)


def _age_seconds(folder: Path) -> float:
    """The time since anything in a folder changed."""
    times = [time.time()]
    with suppress(FileNotFoundError):
        times = [path.stat().st_mtime for path in (folder, *folder.iterdir())]
    return time.time() - max(times)
