"""Wire models of jobs: files that are scored in the background."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

from core.jobs import JobFormat, JobReport, JobState
from core.types import Version


class RejectedRowReply(BaseModel):
    line: int
    reason: str
    raw: str = Field(description="how the row begins")


class JobReply(BaseModel):
    id: UUID
    state: JobState
    progress: float = Field(description="the share of the file that was read, 0 to 1")
    scored: int = Field(description="rows in the result so far")
    rejected: int = Field(description="rows that cannot be scored")
    reason: str | None = Field(description="why the job waits, or has failed")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    owner: str = Field(description="the key, or the address, that made the job")
    path: str | None = Field(description="null: the file was uploaded")
    column: str
    versions: list[Version]
    from_format: JobFormat
    to_format: JobFormat
    rejected_rows: list[RejectedRowReply] = Field(description="the first 100; in a list none")

    @classmethod
    def of(cls, job: JobReport) -> JobReply:
        request, status = job.request, job.status
        return cls(
            id=request.id,
            state=status.state,
            progress=status.fraction,
            scored=status.scored,
            rejected=status.rejected,
            reason=status.reason,
            created_at=request.created_at,
            started_at=status.started_at,
            finished_at=status.finished_at,
            owner=request.owner,
            path=request.path,
            column=request.column,
            versions=list(request.versions),
            from_format=request.from_format,
            to_format=request.to_format,
            rejected_rows=[
                RejectedRowReply(line=row.line, reason=row.reason, raw=row.raw)
                for row in job.rejected_rows
            ],
        )


class JobList(BaseModel):
    jobs: list[JobReply] = Field(description="the newest 1,000, the oldest of them first")
