"""The endpoints of jobs: files that are scored in the background."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol
from uuid import NAMESPACE_OID, UUID, uuid5

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from msgspec.structs import replace

from core.errors import (
    InvalidRequest,
    JobNotFound,
    JobUnfinished,
    StorageFull,
    invalid_field,
)
from core.full_disk import NO_ROOM
from core.jobs import JobFormat, JobReport, JobRequest, JobStatus
from core.request_context import RequestContext, context_of
from core.types import LongText
from core.uuid7 import new_id
from datafiles.chunks import MAX_ROWS
from web.idempotency import KEY_HEADER, KEY_PATTERN, OTHER_REQUEST, RESULT_HEADER, key_of
from web.read_api.file_threads import in_file_thread
from web.read_api.job_options import FORMATS, MEDIA_TYPES, format_of, versions_of
from web.read_api.open_file import OpenFileResponse
from web.read_api.uploads import Arrivals, UploadBounds, receive_file
from web.routes import JOBS_PATH
from web.schemas.jobs import JobList, JobReply

# A caller may not have more; those of all callers may be very many.
MAX_LISTED = 1_000
NEEDS_PYARROW = (
    "needs pyarrow (Parquet, zstd), which this service does not have; its operator can install "
    "requirements/score.lock"
)
_BODY: dict[str, Any] = {
    "parameters": [
        {
            "name": KEY_HEADER,
            "in": "header",
            "description": "With the key of an earlier request the answer is its job as of now.",
            "schema": {"type": "string", "pattern": f"^{KEY_PATTERN}$"},
        }
    ],
    "requestBody": {
        "description": "The file; none with `path`.",
        "required": False,
        "content": {
            media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in FORMATS
        },
    },
}
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "content": {name: {} for name in MEDIA_TYPES.values()}}
}


class StoredJob(Protocol):
    @property
    def request(self) -> JobRequest: ...
    @property
    def result(self) -> Path: ...
    @property
    def rejected(self) -> Path: ...

    def status(self) -> JobStatus: ...

    def report(self) -> JobReport: ...


class JobRoom(Protocol):
    def check_bytes(self, more_bytes: int = 0, *, owner: str) -> object: ...

    def check_number(self, owner: str) -> None: ...


class Jobs(Protocol):
    """The jobs of this host; every method blocks."""

    @property
    def room(self) -> JobRoom: ...

    def new_upload(self, owner: str) -> Path: ...

    def drop_upload(self, upload: Path) -> None: ...

    def add(self, request: JobRequest, upload: Path) -> bool: ...

    def jobs(self) -> Sequence[StoredJob]: ...

    def find(self, id_: str) -> StoredJob: ...

    def remove(self, job: Any) -> None: ...


class JobParts(Protocol):
    @property
    def jobs(self) -> Jobs: ...
    @property
    def upload_bounds(self) -> UploadBounds: ...


def jobs_router(parts: Callable[[], JobParts]) -> APIRouter:
    router = APIRouter(prefix=JOBS_PATH, tags=["jobs"])
    arrivals = Arrivals()

    @router.post("", status_code=201, openapi_extra=_BODY)
    async def add_job(
        request: Request,
        response: Response,
        *,
        path: Annotated[str | None, Query(max_length=4_096)] = None,
        column: Annotated[str, Query(min_length=1, max_length=1_000)] = "text",
        versions: Annotated[str, Query(description="v1, v2, or both")] = "v1,v2",
        from_: Annotated[JobFormat | None, Query(alias="from")] = None,
        to: JobFormat | None = None,
        id_: Annotated[
            str | None, Query(alias="id", description="columns of the result; default: all")
        ] = None,
        limit: Annotated[int | None, Query(ge=1, le=MAX_ROWS)] = None,
        delimiter: Annotated[str | None, Query(max_length=3)] = None,
        encoding: Annotated[str | None, Query(max_length=40)] = None,
        long_text: Annotated[
            LongText, Query(description="what becomes of a text that is longer than the window")
        ] = "truncate",
    ) -> JobReply:
        """Score a file in the background: the body, or a file on the service's host."""
        context = context_of(request.scope)
        sent_keys = [key.encode("latin-1") for key in request.headers.getlist(KEY_HEADER)]
        id_of_key = _id_of(context.caller, key_of(sent_keys)) if sent_keys else None
        from_format = format_of(request, path, from_)
        job = JobRequest(
            id=id_of_key or new_id(datetime.now(UTC)),
            owner=context.caller,
            created_at=datetime.now(UTC),
            column=column,
            versions=versions_of(versions),
            from_format=from_format,
            to_format=to or from_format,
            keep=tuple(dict.fromkeys(id_.split(","))) if id_ is not None else None,
            limit=limit,
            delimiter=delimiter,
            encoding=encoding,
            path=path,
            long_text=long_text,
        )
        found = await in_file_thread(_find_same, parts().jobs, job) if id_of_key else None
        stored, is_new = (found, False) if found else await _store(parts(), request, job, arrivals)
        if id_of_key:
            response.headers[RESULT_HEADER] = "stored" if is_new else "replayed"
        response.headers["location"] = f"jobs/{job.id}"
        return JobReply.of(await in_file_thread(stored.report))

    @router.get("")
    async def list_jobs(request: Request) -> JobList:
        """The caller's jobs on this host; for the scope admin, those of all callers."""
        jobs = await in_file_thread(_listed, parts().jobs, context_of(request.scope))
        return JobList(jobs=jobs)

    async def own(request: Request, job: str) -> StoredJob:
        found = await in_file_thread(parts().jobs.find, job)
        if not _may_see(context_of(request.scope), found):
            raise JobNotFound
        return found

    @router.get("/{job}")
    async def job_status(request: Request, job: str) -> JobReply:
        """How far a job is, and the first rows that it rejected."""
        found = await own(request, job)
        return JobReply.of(await in_file_thread(found.report))

    @router.delete("/{job}", status_code=204)
    async def delete_job(request: Request, job: str) -> None:
        """Cancel a job, and remove it with its files."""
        await in_file_thread(parts().jobs.remove, await own(request, job))

    async def finished(request: Request, job: str) -> StoredJob:
        found = await own(request, job)
        status = await in_file_thread(found.status)
        if status.state != "done":
            raise JobUnfinished(f"The job has no result: it is {status.state}")
        return found

    @router.get("/{job}/result", response_class=FileResponse, responses=_FILE)
    async def job_result(request: Request, job: str) -> FileResponse:
        """The scored file."""
        found = await finished(request, job)
        return _file(found.result, MEDIA_TYPES[found.request.to_format])

    @router.get("/{job}/rejected", response_class=FileResponse, responses=_FILE)
    async def job_rejected(request: Request, job: str) -> Response:
        """All rows that were rejected, as JSON lines; without any, no line."""
        found = await own(request, job)
        status = await in_file_thread(found.status)
        if not status.is_finished:
            raise JobUnfinished(f"The job may reject further rows: it is {status.state}")
        if not await in_file_thread(found.rejected.exists):
            return Response(media_type=MEDIA_TYPES["jsonl"])
        return _file(found.rejected, MEDIA_TYPES["jsonl"])

    return router


def _listed(jobs: Jobs, context: RequestContext) -> list[JobReply]:
    own = [job for job in jobs.jobs() if _may_see(context, job)]
    # Without the rows that they have rejected, of which each may have 600 kB.
    reports = (JobReport(job.request, job.status()) for job in own[-MAX_LISTED:])
    return [JobReply.of(report) for report in reports]


async def _store(
    parts: JobParts, request: Request, job: JobRequest, arrivals: Arrivals
) -> tuple[StoredJob, bool]:
    """The stored job; False: it is of another request with the same key, which came first."""
    with arrivals.counted(job.owner), _refusals():
        await in_file_thread(parts.jobs.room.check_number, job.owner)
        upload = await in_file_thread(parts.jobs.new_upload, job.owner)
        try:
            if job.path is None:
                check_bytes = partial(parts.jobs.room.check_bytes, owner=job.owner)
                await receive_file(request, upload, parts.upload_bounds, check_bytes)
            async with arrivals.opening(job.owner):
                is_new = await in_file_thread(parts.jobs.add, job, upload)
        finally:
            await in_file_thread(parts.jobs.drop_upload, upload)
    stored = await in_file_thread(_find_same, parts.jobs, job)
    if stored is None:
        raise JobNotFound
    return stored, is_new


@contextmanager
def _refusals() -> Iterator[None]:
    """What a caller reads where a job cannot be stored."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise invalid_field("file", NEEDS_PYARROW) from error
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StorageFull("The disk is full", retry_after_seconds=60) from error
        raise
    except ValueError as error:  # it cannot be read as the request says
        raise invalid_field("file", str(error)) from error


def _file(path: Path, media_type: str) -> FileResponse:
    return OpenFileResponse(path, media_type=media_type, filename=path.name)


def _may_see(context: RequestContext, job: StoredJob) -> bool:
    return context.is_admin or job.request.owner == context.caller


def _id_of(caller: str, key: bytes) -> UUID:
    """The id of the job that a caller makes with an Idempotency-Key."""
    return uuid5(NAMESPACE_OID, f"{caller}\0{key.decode()}")


def _find_same(jobs: Jobs, request: JobRequest) -> StoredJob | None:
    """The job that an earlier request with the same key has made.

    Raises:
        InvalidRequest: it has other options.
    """
    try:
        found = jobs.find(str(request.id))
    except JobNotFound:
        return None
    if replace(found.request, created_at=request.created_at) != request:
        raise InvalidRequest(OTHER_REQUEST)
    return found
