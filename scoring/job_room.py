"""How much of a disk jobs may use, and how many of them there may be."""

from __future__ import annotations

import errno
import os
import shutil

from core.errors import RateLimited, StorageFull
from scoring.job_faults import ShareUsed
from scoring.job_folders import JobFolders, bytes_in

# All jobs of one caller may use this part of what all jobs may.
CALLER_SHARE = 0.5
# A caller may have so many jobs that have not ended.
MAX_UNFINISHED = 20
# And so many in all: each has files of its own until it is removed, however small it is.
MAX_KEPT = 1_000
# Jobs leave so much of a disk to others, or this part of a small one: without room for the
# prediction log every prediction is refused.
KEPT_FREE_BYTES = 512 << 20
KEPT_FREE_PART = 8


class JobRoom:
    """The bounds of jobs, and of a caller's. The methods block, and may be called in any thread."""

    def __init__(
        self,
        folders: JobFolders,
        *,
        max_bytes: int,
        kept_free_bytes: int = KEPT_FREE_BYTES,
        kept_free_part: int = KEPT_FREE_PART,
    ) -> None:
        """`max_bytes` bounds all files of all jobs.

        Of the disk `kept_free_bytes` are left to others, or one part of `kept_free_part`.
        """
        self._folders = folders
        self._max_bytes = max_bytes
        self._kept_free = kept_free_bytes, kept_free_part

    def check_bytes(self, more_bytes: int = 0, *, owner: str) -> None:
        """Check the room for more bytes of all jobs, and of the uploads and jobs of `owner`.

        Raises:
            StorageFull: jobs, or those of `owner`, may use no more of the disk.
            OSError: as `check_disk`.
        """
        self.check_disk()
        used = self._folders.used_bytes() + more_bytes
        if used > self._max_bytes:
            raise StorageFull(self._no_room, retry_after_seconds=60)
        if used > self._most_of_caller:
            own = self._folders.bytes_of_jobs(owner) + self._folders.bytes_of_uploads(owner)
            if own + more_bytes > self._most_of_caller:
                raise StorageFull(self._no_share, retry_after_seconds=60)

    def check_disk(self) -> None:
        """Check that the disk has room beside jobs, for the prediction log and PostgreSQL.

        Raises:
            OSError: ENOSPC, it has little.
        """
        disk = shutil.disk_usage(self._folders.folder)
        kept_bytes, part = self._kept_free
        if disk.free < min(kept_bytes, disk.total // part):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folders.folder))

    def check_growth(self, owner: str) -> None:
        """Check that a job of a caller, which runs, may go on. Its uploads do not end its jobs.

        Raises:
            ShareUsed: it has to end: the jobs of its caller use all that they may, or those that
                have not ended use all there is, so that each would wait for the others for ever.
            StorageFull: it can go on when others are removed.
            OSError: as `check_disk`.
        """
        self.check_disk()
        used = self._folders.used_bytes()
        if used <= self._most_of_caller:
            return  # nor does any caller use more
        if self._folders.bytes_of_jobs(owner) > self._most_of_caller:
            raise ShareUsed(self._no_share)
        if used > self._max_bytes:
            unfinished = [job for job in self._folders.jobs() if not job.status().is_finished]
            if sum(bytes_in(str(job.folder)) for job in unfinished) > self._max_bytes:
                raise ShareUsed(self._no_room)
            raise StorageFull(self._no_room, retry_after_seconds=60)

    def check_number(self, owner: str) -> None:
        """Check that a caller may have one more job.

        Raises:
            RateLimited: too many of its jobs have not ended.
            StorageFull: it has too many in all.
        """
        own = [job for job in self._folders.jobs() if job.request.owner == owner]
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
