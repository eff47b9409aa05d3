"""A job on disk: its request, its status, its output and what it rejected."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec

from core.atomic_file import write_atomically
from core.jobs import JobReport, JobRequest, JobStatus, RejectedRow
from core.unreadable import UNREADABLE
from datafiles.formats import Format, Input
from datafiles.watched import Watch
from scoring.job import Job

SHOWN_REJECTED_ROWS = 100


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job on disk."""

    folder: Path
    request: JobRequest
    # The last status of a job that had ended when it was read: it has no other after that.
    ended: JobStatus | None = None

    @property
    def upload(self) -> Path:
        return self.folder / "input"

    @property
    def result(self) -> Path:
        return result_in(self.folder, self.request)

    @property
    def rejected(self) -> Path:
        return self._beside(".rejected.jsonl")

    def _beside(self, suffix: str) -> Path:
        return self.result.with_name(self.result.name + suffix)

    def status(self) -> JobStatus:
        if self.ended is not None:
            return self.ended
        try:
            return msgspec.json.decode((self.folder / "status.json").read_bytes(), type=JobStatus)
        except (*UNREADABLE, FileNotFoundError):
            return JobStatus()

    def write_status(self, status: JobStatus) -> None:
        """Raises FileNotFoundError: the job was removed."""
        content = msgspec.json.encode(status)
        write_atomically(self.folder / "status.json", content, makes_folder=False)

    def to_score(self, source: Path, watch: Watch, *, restart: bool) -> Job:
        """The job for scoring/job.py; `source` is the file, `watch` is called while it is read."""
        return job_of(self.request, source, self.result, watch, restart=restart)

    @property
    def has_result(self) -> bool:
        """Whether the output is whole."""
        return self.result.exists() and not self._beside(".progress").exists()

    @property
    def is_removed(self) -> bool:
        return not self.folder.exists()

    def drop_output(self) -> None:
        """Remove what the job has written beside its request and its status."""
        for file in self.folder.glob(f"{self.result.name}*"):
            file.unlink(missing_ok=True)

    def drop_unfinished(self) -> None:
        """Remove the output of a job that has failed, but not what it tells of its rows."""
        for suffix in (".partial", ".converting", ".progress"):
            self._beside(suffix).unlink(missing_ok=True)

    def report(self) -> JobReport:
        status = self.status()
        return JobReport(self.request, status, self._rejected_rows() if status.rejected else ())

    def _rejected_rows(self) -> Sequence[RejectedRow]:
        try:
            with self.rejected.open("rb") as file:
                lines = list(islice(file, SHOWN_REJECTED_ROWS))
        except FileNotFoundError:
            return ()
        rows = []
        for line in lines:
            with suppress(*UNREADABLE):  # the last line may be half written
                rows.append(msgspec.json.decode(line, type=RejectedRow))
        return rows


def result_in(folder: Path, request: JobRequest) -> Path:
    return folder / f"result.{request.to_format}"


def job_of(
    request: JobRequest, source: Path, out: Path, watch: Watch, *, restart: bool = False
) -> Job:
    return Job(
        Input(
            source,
            Format(request.from_format),
            request.encoding,
            request.delimiter,
            is_strange=request.path is None,
            is_guarded=True,
            watch=watch,
        ),
        out,
        Format(request.to_format),
        request.column,
        request.versions,
        request.keep,
        request.limit,
        restart,
        request.long_text,
    )
