"""A file that is scored in the background: its request, its status, and where both are found."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from core.types import LongText, Version

JobFormat = Literal["csv", "jsonl", "parquet"]
# queued -> running <-> waiting -> done or failed
JobState = Literal["queued", "running", "waiting", "done", "failed"]
UNFINISHED: tuple[JobState, ...] = ("queued", "running", "waiting")


class JobRequest(msgspec.Struct, frozen=True):
    """What is scored, for whom, and how; `path` is that of a file on this host, None: uploaded."""

    id: UUID
    owner: str
    created_at: datetime
    column: str
    versions: tuple[Version, ...]
    from_format: JobFormat
    to_format: JobFormat
    keep: tuple[str, ...] | None = None
    limit: int | None = None
    delimiter: str | None = None
    encoding: str | None = None
    path: str | None = None
    long_text: LongText = "truncate"


class JobStatus(msgspec.Struct, frozen=True):
    """How far a job is; `reason` says why it waits or has failed."""

    state: JobState = "queued"
    fraction: float = 0.0
    scored: int = 0
    rejected: int = 0
    reason: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    # Begun since a row was last scored or rejected; more than one if processes have died of it.
    attempts: int = 0

    @property
    def is_finished(self) -> bool:
        return self.state not in UNFINISHED


class RejectedRow(msgspec.Struct, frozen=True):
    """A row that was not scored, and how it begins."""

    line: int
    reason: str
    raw: str


class JobReport(msgspec.Struct, frozen=True):
    """A job with the first of its rejected rows."""

    request: JobRequest
    status: JobStatus
    rejected_rows: Sequence[RejectedRow] = ()
