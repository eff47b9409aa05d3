"""Jobs over HTTP: uploads, allowed folders, progress, results, and what can go wrong."""

from __future__ import annotations

import asyncio
import errno
import gzip
import io
import os
import shutil
import stat
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.types import Message, Scope

from core.jobs import JobStatus
from core.temporary_folders import OWNER
from runners.calls import MAX_LOST
from scoring.job_room import MAX_KEPT, MAX_UNFINISHED
from tests.full_disk import no_larger_files
from tests.integration.scoring.jobs import MAX_UPLOAD, JobService, ended
from tests.parquet import encrypted_parquet
from tests.waiting import until
from web.problems import ProblemMiddleware
from web.read_api.open_file import OpenFileResponse
from web.read_api.uploads import MAX_ARRIVING

CSV = {"Content-Type": "text/csv"}
ROWS = "id,text\n1,good film\n2,\n3,a bad one\n"
LONG = "id,text\n" + "".join(f"{row},text number {row}\n" for row in range(3_000))


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[JobService]:
    service = JobService(tmp_path / "jobs")
    service.runner.start()
    yield service
    await service.runner.stop()


@pytest.fixture
async def client(service: JobService) -> AsyncIterator[httpx.AsyncClient]:
    async with service.client() as client:
        yield client


async def add(client: httpx.AsyncClient, content: str | bytes = ROWS, **options: Any) -> str:
    reply = await client.post("/jobs", content=content, headers=CSV, params=options)
    assert reply.status_code == 201, reply.text
    assert reply.headers["location"] == f"jobs/{reply.json()['id']}"
    return str(reply.json()["id"])


async def test_uploaded_file_is_scored_and_its_rejected_rows_have_reasons(
    service: JobService, client: httpx.AsyncClient
) -> None:
    job = await add(client)
    report = await ended(client, job)
    assert (report["state"], report["progress"], report["reason"]) == ("done", 1.0, None)
    assert (report["scored"], report["rejected"]) == (2, 1)
    [row] = report["rejected_rows"]
    [listed] = (await client.get("/jobs")).json()["jobs"]
    assert listed == {**report, "rejected_rows": []}
    assert (row["line"], row["raw"]) == (3, "2,")
    assert row["reason"].startswith("text: ")
    result = await client.get(f"/jobs/{job}/result")
    assert result.headers["content-type"].startswith("text/csv")
    head, first, second = result.text.splitlines()
    assert head == "id,text,sentiment_v1,confidence_v1,sentiment_v2,confidence_v2,truncated"
    assert (first.split(",")[:2], second.split(",")[:2]) == (["1", "good film"], ["3", "a bad one"])
    assert service.v1.lanes == service.v2.lanes == {"bulk"}
    rejected = await client.get(f"/jobs/{job}/rejected")
    assert msgspec.json.decode(rejected.content.splitlines()[0])["line"] == 3
    # The uploaded file is not needed any more.
    assert not (service.jobs.folder / job / "input").exists()


@pytest.mark.parametrize(
    ("content", "media_type", "options", "rows"),
    [
        ("id;text\n1;good\n", "text/csv", {}, ["1"]),
        ("id\ttext\n1\tgood\n", "text/tab-separated-values", {}, ["1"]),
        ("id,Body\n1,good\n", "text/csv", {"column": "Body"}, ["1"]),
        ('{"id": 1, "text": "good"}\n', "application/jsonlines", {}, ["1"]),
        ('{"id": 1, "text": "good"}\n', "application/x-ndjson", {"to": "csv"}, ["1"]),
        (gzip.compress(b"id,text\n1,good\n"), "application/octet-stream", {"from": "csv"}, ["1"]),
        ("id,text\n1,good\n2,bad\n", "text/csv", {"limit": "1"}, ["1"]),
        ("id,text\n1,good\n", "text/csv", {"versions": "v2", "id": "id"}, ["1"]),
        ("id,text\n1,sch\xf6n\n".encode("cp1252"), "text/csv", {"encoding": "cp1252"}, ["1"]),
        ("id,text\n1,good\n", "text/csv; charset=utf-8", {"to": "jsonl"}, ["1"]),
        ("id,text\n1,good\n", "text/csv", {"to": "parquet"}, ["1"]),
    ],
)
async def test_file_is_read_and_written_as_the_request_says(
    client: httpx.AsyncClient,
    content: str | bytes,
    media_type: str,
    options: dict[str, str],
    rows: list[str],
) -> None:
    reply = await client.post(
        "/jobs", content=content, headers={"Content-Type": media_type}, params=options
    )
    assert reply.status_code == 201, reply.text
    job = reply.json()["id"]
    report = await ended(client, job)
    assert (report["state"], report["scored"]) == ("done", 1), report
    result = await client.get(f"/jobs/{job}/result")
    match report["to_format"]:
        case "parquet":
            found = pq.read_table(io.BytesIO(result.content)).column("id").to_pylist()
        case "jsonl":
            found = [str(msgspec.json.decode(line)["id"]) for line in result.content.splitlines()]
        case _:
            found = [line.split(",")[0] for line in result.text.splitlines()[1:]]
    assert [value.split("\t")[0].split(";")[0] for value in found] == rows


@pytest.mark.parametrize(
    ("content", "headers", "options", "status", "says"),
    [
        (ROWS, {"Content-Type": "application/json"}, {}, 415, "Send one Content-Type"),
        (ROWS, {}, {}, 415, "Send one Content-Type"),
        (ROWS, {}, {"from": "csv"}, 415, "Send one Content-Type"),
        (ROWS, {"Content-Type": "text/plain"}, {"from": "csv"}, 415, "Send one Content-Type"),
        (ROWS, {"Content-Type": "application/octet-stream"}, {}, 422, "from: is required"),
        (ROWS, CSV, {"versions": "v3"}, 422, "versions: must be v1, v2 or v1,v2"),
        (ROWS, CSV, {"versions": "v1,v1"}, 422, "versions: must be"),
        (ROWS, CSV, {"colunm": "text"}, 422, "colunm"),
        (ROWS, CSV, {"column": "body"}, 422, "body"),
        (ROWS, CSV, {"id": "nothing"}, 422, "nothing"),
        (ROWS, CSV, {"to": "xlsx"}, 422, "to"),
        (ROWS, CSV, {"limit": "0"}, 422, "limit"),
        (ROWS, CSV, {"encoding": "klingon"}, 422, "klingon"),
        ("id,te+AGEAYQ", CSV, {"encoding": "utf-7"}, 422, "utf-7"),
        ("id,text\n1,\\N{AAAA", CSV, {"encoding": "unicode_escape"}, 422, "unicode_escape"),
        ("", CSV, {}, 422, "file: "),
        (b"PK\x03\x04" + bytes(100), CSV, {}, 422, "file: "),
        (ROWS, {"Content-Type": "application/vnd.apache.parquet"}, {}, 422, "file: "),
        (
            encrypted_parquet(),
            {"Content-Type": "application/vnd.apache.parquet"},
            {},
            422,
            "file: the file cannot be read: it is damaged or encrypted",
        ),
        ("text,sentiment_v1\na,b\n", CSV, {}, 422, "result columns"),
        ("x" * (MAX_UPLOAD + 1), CSV, {}, 413, "A file may have at most 200,000 bytes"),
        (ROWS, CSV, {"limit": str(2**63)}, 422, "limit: "),
        (ROWS, CSV, {"path": "reviews.csv"}, 422, "path: is no file in one of the folders"),
    ],
)
async def test_request_that_cannot_be_a_job_is_refused_and_leaves_nothing(
    service: JobService,
    client: httpx.AsyncClient,
    *,
    content: str | bytes,
    headers: dict[str, str],
    options: dict[str, str],
    status: int,
    says: str,
) -> None:
    reply = await client.post("/jobs", content=content, headers=headers, params=options)
    assert reply.status_code == status, reply.text
    assert says in reply.json()["detail"]
    assert (await client.get("/jobs")).json() == {"jobs": []}
    assert not [entry for entry in service.jobs.folder.glob("*") if entry.is_dir()]


async def test_upload_without_a_length_is_bounded_too(
    service: JobService, client: httpx.AsyncClient
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"id,text\n" * 1_000

    reply = await client.post("/jobs", content=endless(), headers=CSV)
    assert reply.status_code == 413
    assert not list(service.jobs.folder.glob(".upload-*"))


async def test_upload_repeated_with_its_idempotency_key_is_the_same_job(
    service: JobService, client: httpx.AsyncClient
) -> None:
    service.v1.gate.clear()
    headers = CSV | {"Idempotency-Key": "the-file-of-monday"}
    uploads = [client.post("/jobs", content=ROWS, headers=headers) for _ in range(4)]
    replies = [*await asyncio.gather(*uploads)]
    replies.append(await client.post("/jobs", content=ROWS, headers=headers))
    assert {reply.status_code for reply in replies} == {201}
    [job] = {reply.json()["id"] for reply in replies}
    assert replies[-1].headers["idempotency-result"] == "replayed"
    results = [reply.headers["idempotency-result"] for reply in replies]
    assert sorted(results) == ["replayed"] * 4 + ["stored"]
    assert [listed["id"] for listed in (await client.get("/jobs")).json()["jobs"]] == [job]
    assert not list(service.jobs.folder.glob(".upload-*"))
    other = await client.post("/jobs", content=ROWS, headers=headers, params={"limit": "1"})
    assert (other.status_code, other.json()["detail"]) == (
        422, "This Idempotency-Key came before with another request; use a new key",
    )  # fmt: skip
    invalid = await client.post("/jobs", content=ROWS, headers=CSV | {"Idempotency-Key": "a b"})
    assert invalid.status_code == 400
    async with service.client("bob") as bob:
        assert (await bob.post("/jobs", content=ROWS, headers=headers)).json()["id"] != job
    service.v1.gate.set()
    await ended(client, job)
    again = await client.post("/jobs", content=ROWS, headers=headers)
    assert (again.json()["id"], again.json()["state"]) == (job, "done")


async def test_other_parameters_with_the_same_key_at_once_are_422(
    service: JobService, client: httpx.AsyncClient
) -> None:
    service.v1.gate.clear()
    headers = CSV | {"Idempotency-Key": "at-once"}
    replies = await asyncio.gather(
        *[
            client.post("/jobs", content=ROWS, headers=headers, params={"limit": str(limit)})
            for limit in (1, 2)
        ]
    )
    assert sorted(reply.status_code for reply in replies) == [201, 422]
    service.v1.gate.set()


async def test_job_is_seen_by_its_key_and_by_admins_alone(
    service: JobService, client: httpx.AsyncClient
) -> None:
    job = await add(client)
    await ended(client, job)
    async with service.client("bob") as bob, service.client("admin") as admin:
        assert (await bob.get("/jobs")).json() == {"jobs": []}
        unknown = "00000000-0000-7000-8000-000000000000"
        for path in (f"/jobs/{job}", f"/jobs/{job}/result", f"/jobs/{job}/rejected"):
            refused, absent = await bob.get(path), await bob.get(path.replace(job, unknown))
            assert (refused.status_code, absent.status_code) == (404, 404)
            assert refused.json()["detail"] == absent.json()["detail"]
        assert (await bob.delete(f"/jobs/{job}")).status_code == 404
        assert [listed["id"] for listed in (await admin.get("/jobs")).json()["jobs"]] == [job]
        assert (await admin.get(f"/jobs/{job}/result")).status_code == 200
        assert (await admin.delete(f"/jobs/{job}")).status_code == 204
    assert (await client.get(f"/jobs/{job}")).status_code == 404


@pytest.mark.parametrize(
    "id_", ["x", "..", "%2e%2e", ".lock", "00000000-0000-7000-8000-000000000000", "a" * 300]
)
async def test_id_that_is_no_job_is_404(client: httpx.AsyncClient, id_: str) -> None:
    for path in (f"/jobs/{id_}", f"/jobs/{id_}/result"):
        assert (await client.get(path)).status_code == 404


async def test_part_of_a_result_is_sent_by_range(client: httpx.AsyncClient) -> None:
    job = await add(client)
    await ended(client, job)
    whole = (await client.get(f"/jobs/{job}/result")).content
    part = await client.get(f"/jobs/{job}/result", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole[10:20])
    past = await client.get(f"/jobs/{job}/result", headers={"Range": "bytes=99999-"})
    assert past.status_code == 416


@pytest.mark.parametrize("wanted", ["bytes=" + "9" * 5_000 + "-", "rows=1-2", "bytes", "bytes=3-1"])
async def test_range_that_cannot_be_read_is_told_what_can(
    client: httpx.AsyncClient, wanted: str
) -> None:
    job = await add(client)
    await ended(client, job)
    reply = await client.get(f"/jobs/{job}/result", headers={"Range": wanted})
    assert (reply.status_code, reply.headers["content-type"]) == (400, "application/problem+json")
    assert reply.json()["detail"] == "Range names bytes, as bytes=0-99, bytes=100- or bytes=-100"


@pytest.mark.parametrize(("long_text", "scored"), [(None, 2), ("windows", 2), ("refuse", 1)])
async def test_long_texts_are_read_as_the_job_says(
    service: JobService, client: httpx.AsyncClient, long_text: str | None, scored: int
) -> None:
    options = {} if long_text is None else {"long_text": long_text}
    job = await add(client, "text\ngood film\none two three four five\n", **options)
    report = await ended(client, job)
    assert (report["state"], report["scored"], report["rejected"]) == ("done", scored, 2 - scored)
    assert service.v1.modes == {long_text or "truncate"}


@pytest.mark.parametrize("wanted", ["bytes=100000-", "bytes=100000-100010", "bytes=-0"])
async def test_range_past_the_end_of_a_result_is_416_with_its_length(
    client: httpx.AsyncClient, wanted: str
) -> None:
    job = await add(client)
    await ended(client, job)
    whole = await client.get(f"/jobs/{job}/result")
    reply = await client.get(f"/jobs/{job}/result", headers={"Range": wanted})
    assert reply.status_code == 416
    assert reply.headers["content-range"] == f"bytes */{len(whole.content)}"
    assert reply.headers["content-type"] == "application/problem+json"


async def test_files_of_a_job_are_readable_by_the_service_alone(
    service: JobService, client: httpx.AsyncClient
) -> None:
    service.v1.gate.clear()
    first = await add(client)
    await service.v1.entered.wait()
    during = [path for path in service.jobs.folder.rglob("*") if path.is_file()]
    service.v1.gate.set()
    await ended(client, first)
    for path in (*during, *service.jobs.folder.rglob("*")):
        if path.exists():
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


async def test_jobs_run_one_at_a_time_in_their_order(
    service: JobService, client: httpx.AsyncClient
) -> None:
    service.v1.gate.clear()
    jobs = [await add(client) for _ in range(3)]
    await ended(client, jobs[0], "running", "queued")
    await service.v1.entered.wait()
    states = [(await client.get(f"/jobs/{job}")).json()["state"] for job in jobs]
    assert states[1:] == ["queued", "queued"]
    service.v1.gate.set()
    reports = [await ended(client, job) for job in jobs]
    finished = [report["finished_at"] for report in reports]
    assert finished == sorted(finished)


async def test_caller_with_too_many_unfinished_jobs_is_429(
    service: JobService, client: httpx.AsyncClient
) -> None:
    service.v1.gate.clear()
    for _ in range(MAX_UNFINISHED):
        await add(client)
    reply = await client.post("/jobs", content=ROWS, headers=CSV)
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "60")
    async with service.client("bob") as bob:
        assert (await bob.post("/jobs", content=ROWS, headers=CSV)).status_code == 201
    service.v1.gate.set()


async def stalling(goes_on: asyncio.Event) -> AsyncIterator[bytes]:
    """An upload that comes whole when the test says so."""
    yield b"text\n"
    await goes_on.wait()
    yield b"good\n"


async def test_uploads_that_end_at_the_same_time_give_no_more_jobs_than_a_caller_may_have(
    service: JobService, client: httpx.AsyncClient
) -> None:
    service.v1.gate.clear()
    for _ in range(MAX_UNFINISHED - 2):
        await add(client)
    goes_on = asyncio.Event()
    uploads = [
        asyncio.create_task(client.post("/jobs", content=stalling(goes_on), headers=CSV))
        for _ in range(9)
    ]
    folder = service.jobs.folder
    await until(lambda: len(list(folder.glob(".upload-*"))) == 9)
    goes_on.set()
    codes = sorted(reply.status_code for reply in await asyncio.gather(*uploads))
    assert codes == [201] * 2 + [429] * 7
    assert len((await client.get("/jobs")).json()["jobs"]) == MAX_UNFINISHED
    assert not list(folder.glob(".upload-*"))
    service.v1.gate.set()


async def test_caller_with_too_many_uploads_under_way_is_429_and_others_are_not(
    service: JobService, client: httpx.AsyncClient
) -> None:
    goes_on = asyncio.Event()
    uploads = [
        asyncio.create_task(client.post("/jobs", content=stalling(goes_on), headers=CSV))
        for _ in range(MAX_ARRIVING)
    ]
    folder = service.jobs.folder
    await until(lambda: len(list(folder.glob(".upload-*"))) == MAX_ARRIVING)
    reply = await client.post("/jobs", content=ROWS, headers=CSV)
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "60")
    assert len(list(folder.glob(".upload-*"))) == MAX_ARRIVING
    async with service.client("bob") as bob:
        assert (await bob.post("/jobs", content=ROWS, headers=CSV)).status_code == 201
    goes_on.set()
    assert {reply.status_code for reply in await asyncio.gather(*uploads)} == {201}


async def test_caller_with_too_many_ended_jobs_is_507_until_one_is_deleted(
    service: JobService, client: httpx.AsyncClient
) -> None:
    first = await add(client)
    await ended(client, first)
    folder = service.jobs.folder
    request = msgspec.json.decode((folder / first / "job.json").read_bytes())
    for _ in range(MAX_KEPT - 1):
        id_ = str(uuid4())
        shutil.copytree(folder / first, folder / id_)
        (folder / id_ / "job.json").write_bytes(msgspec.json.encode(request | {"id": id_}))
    reply = await client.post("/jobs", content=ROWS, headers=CSV)
    assert (reply.status_code, reply.headers["retry-after"]) == (507, "60")
    assert "A caller may have 1,000 jobs" in reply.json()["detail"]
    async with service.client("bob") as bob:
        assert (await bob.post("/jobs", content=ROWS, headers=CSV)).status_code == 201
    assert (await client.delete(f"/jobs/{first}")).status_code == 204
    assert (await ended(client, await add(client)))["state"] == "done"


@pytest.mark.parametrize("planted", ["folder", "link"])
async def test_job_that_another_user_has_put_there_is_none(
    service: JobService,
    client: httpx.AsyncClient,
    planted: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its files may be links to those of the service's user."""
    job = await add(client)
    await ended(client, job)
    folder = service.jobs.folder / job
    folder.rename(tmp_path / "elsewhere")
    if planted == "link":
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        shutil.copytree(tmp_path / "elsewhere", folder)
    if planted == "folder" and os.geteuid() == 0:
        os.chown(folder, 65_534, 65_534)
    elif planted == "folder":
        monkeypatch.setattr(os, "geteuid", lambda: 65_534)
    for path in (f"/jobs/{job}", f"/jobs/{job}/result"):
        assert (await client.get(path)).status_code == 404
    assert job not in [each["id"] for each in (await client.get("/jobs")).json()["jobs"]]


@pytest.mark.parametrize("content", [b"{", b'{"a":' * 9_000, b'{"state": "\xff"}'])
async def test_damaged_files_of_a_job_stop_no_other(
    service: JobService, client: httpx.AsyncClient, content: bytes
) -> None:
    damaged = [await add(client) for _ in range(2)]
    for job in damaged:
        await ended(client, job)
    (service.jobs.folder / damaged[0] / "job.json").write_bytes(content)
    (service.jobs.folder / damaged[1] / "status.json").write_bytes(content)
    assert (await client.get(f"/jobs/{damaged[0]}")).status_code == 404
    assert (await client.get(f"/jobs/{damaged[1]}")).status_code == 200
    assert (await ended(client, await add(client)))["state"] == "done"


async def test_job_that_was_deleted_and_made_again_is_the_new_one(
    service: JobService, client: httpx.AsyncClient
) -> None:
    for content, scored in ((ROWS, 2), ("text\na\nb\nc\n", 3)):
        reply = await client.post(
            "/jobs", content=content, headers=CSV | {"Idempotency-Key": "same"}
        )
        report = await ended(client, reply.json()["id"])
        assert (report["state"], report["scored"]) == ("done", scored)
        assert [job.status().scored for job in service.jobs.jobs()] == [scored]
        assert (await client.delete(f"/jobs/{report['id']}")).status_code == 204


async def test_deleted_job_stops_and_the_next_one_runs(
    service: JobService, client: httpx.AsyncClient
) -> None:
    service.v1.gate.clear()
    cancelled, following = await add(client, LONG), await add(client)
    await service.v1.entered.wait()
    assert (await client.get(f"/jobs/{cancelled}/result")).status_code == 409
    assert (await client.delete(f"/jobs/{cancelled}")).status_code == 204
    service.v1.gate.set()
    assert (await ended(client, following))["state"] == "done"
    names = {path.name for path in service.jobs.folder.iterdir()}
    assert names == {".lock", following}


async def test_job_waits_for_a_model_and_goes_on(
    service: JobService, client: httpx.AsyncClient
) -> None:
    service.v1.overloads = 1
    job = await add(client)
    report = await ended(client, job, "waiting", "done")
    assert (report["state"], report["reason"]) == (
        "waiting", "The model has too much to do; try again",
    )  # fmt: skip
    report = await ended(client, job)
    assert (report["state"], report["reason"]) == ("done", None)


async def test_job_goes_on_slowly_under_the_load_of_others(
    service: JobService, client: httpx.AsyncClient
) -> None:
    service.v1.is_idle = False
    report = await ended(client, await add(client))
    assert report["state"] == "done"


async def test_stopped_service_resumes_its_job_where_it_was(tmp_path: Path) -> None:
    first = JobService(tmp_path / "jobs")
    first.runner.start()
    async with first.client() as client:
        job = await add(client, LONG)
        # Within the second chunk of three.
        await until(lambda: len(first.v2.sizes) >= 17)
        first.v1.gate.clear()
        await first.runner.stop()
    second = JobService(tmp_path / "jobs")
    second.runner.start()
    async with second.client() as client:
        report = await ended(client, job)
        assert (report["state"], report["scored"]) == ("done", 3_000)
        lines = (await client.get(f"/jobs/{job}/result")).text.splitlines()
    await second.runner.stop()
    assert [line.split(",")[0] for line in lines] == ["id", *map(str, range(3_000))]
    assert sum(second.v1.sizes) < 3_000


async def test_other_process_of_the_host_reads_jobs_and_takes_over(tmp_path: Path) -> None:
    holder, other = JobService(tmp_path / "jobs"), JobService(tmp_path / "jobs")
    holder.runner.start()
    async with holder.client() as client, other.client() as beside:
        done = await add(client)
        await ended(beside, done)
        other.runner.start()
        await holder.runner.stop()
        assert (await ended(beside, await add(beside)))["state"] == "done"
    assert other.v1.sizes
    await other.runner.stop()


async def test_replaced_model_begins_the_job_again(
    service: JobService, client: httpx.AsyncClient
) -> None:
    service.v1.gate.clear()
    job = await add(client, LONG)
    await service.v1.entered.wait()
    service.v1.revision = "r2"
    service.v1.gate.set()
    report = await ended(client, job)
    assert (report["state"], report["scored"]) == ("done", 3_000)
    lines = (await client.get(f"/jobs/{job}/result")).text.splitlines()
    assert len(lines) == 3_001


async def test_result_that_was_whole_when_the_process_died_is_done(
    service: JobService, client: httpx.AsyncClient
) -> None:
    job = await add(client)
    await ended(client, job)
    stored = service.jobs.find(job)
    whole = stored.result.read_bytes()
    stored.write_status(JobStatus("running", 1.0, scored=2, rejected=1))
    report = await ended(client, job)
    assert (report["state"], report["scored"]) == ("done", 2)
    assert stored.result.read_bytes() == whole


async def test_disk_that_takes_no_more_makes_a_job_wait_and_refuses_uploads(
    service: JobService, client: httpx.AsyncClient
) -> None:
    service.v1.gate.clear()
    job = await add(client, LONG)
    await service.v1.entered.wait()
    with no_larger_files(40_000):
        service.v1.gate.set()
        report = await ended(client, job, "waiting")
        assert report["reason"] == "The disk is full"
        reply = await client.post("/jobs", content=LONG, headers=CSV)
        assert (reply.status_code, reply.json()["detail"]) == (507, "The disk is full")
    report = await ended(client, job)
    assert (report["state"], report["scored"]) == ("done", 3_000)
    assert not list(service.jobs.folder.glob(".upload-*"))


async def test_end_that_the_disk_has_no_room_for_is_told_once_it_has(
    service: JobService, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    service.v1.gate.clear()
    job = await add(client)
    await service.v1.entered.wait()
    service.v1.error = OSError(errno.EIO, os.strerror(errno.EIO))
    with no_larger_files(0):
        service.v1.gate.set()
        upload = service.jobs.find(job).upload
        await until(lambda: not upload.exists())
        await until(lambda: "the status of a job cannot be written" in caplog.text)
    report = await ended(client, job)
    assert report["state"] == "failed"
    assert report["reason"].startswith("A file cannot be read or written: Input/output error")


async def test_status_of_a_removed_job_makes_no_folder(
    service: JobService, client: httpx.AsyncClient
) -> None:
    job = await add(client)
    await ended(client, job)
    stored = service.jobs.find(job)
    service.jobs.remove(stored)
    with pytest.raises(FileNotFoundError):
        stored.write_status(JobStatus("running"))
    assert not stored.folder.exists()


async def test_jobs_leave_room_on_the_disk_to_the_prediction_log(tmp_path: Path) -> None:
    """Where most of a disk is kept free, it is full for jobs when others can still write."""
    before, service = JobService(tmp_path / "jobs"), JobService(tmp_path / "jobs", kept_free_part=1)
    async with before.client() as client:
        job = await add(client)
    service.runner.start()
    async with service.client() as client:
        report = await ended(client, job, "waiting")
        assert report["reason"] == "The disk is full"
        refused = await client.post("/jobs", content=ROWS, headers=CSV)
        assert (refused.status_code, refused.json()["detail"]) == (507, "The disk is full")
    await service.runner.stop()
    before.runner.start()
    async with before.client() as client:
        assert (await ended(client, job))["state"] == "done"
    await before.runner.stop()


async def test_jobs_that_use_all_of_their_room_wait(tmp_path: Path) -> None:
    service = JobService(tmp_path / "jobs", max_bytes=1_000_000)
    service.runner.start()
    async with service.client() as client:
        filler = service.jobs.folder / "filler"
        service.v1.gate.clear()
        job = await add(client, LONG)
        await service.v1.entered.wait()
        filler.write_bytes(bytes(1_000_000))
        service.v1.gate.set()
        report = await ended(client, job, "waiting")
        assert "bytes" in report["reason"]
        refused = await client.post("/jobs", content=ROWS, headers=CSV)
        assert (refused.status_code, refused.headers["retry-after"]) == (507, "60")
        filler.unlink()
        report = await ended(client, job)
        assert (report["state"], report["scored"]) == ("done", 3_000)
    await service.runner.stop()


@pytest.mark.parametrize("max_bytes", [1_000_000, 600_000])
async def test_job_past_the_share_of_its_caller_fails_and_keeps_no_one_waiting(
    tmp_path: Path, max_bytes: int
) -> None:
    """Also if a chunk takes it past the room of all at once."""
    service = JobService(tmp_path / "jobs", max_bytes=max_bytes)
    async with service.client("ann") as ann, service.client("bob") as bob:
        # A small file, of which each row is rejected with a longer line.
        large = await add(ann, gzip.compress(b"text\n" + b'""\n' * 50_000), versions="v1")
        small = await add(bob)
        service.runner.start()
        report = await ended(ann, large)
        assert report["state"] == "failed"
        assert f"All jobs of a caller may use {max_bytes // 2:,} bytes" in report["reason"]
        assert (await ended(bob, small))["state"] == "done"
        assert {file.name for file in (service.jobs.folder / large).iterdir()} == {
            "job.json", "status.json",
        }  # fmt: skip
        assert (await ended(ann, await add(ann)))["state"] == "done"
    await service.runner.stop()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
async def test_upload_whose_output_repeats_long_names_in_each_row_fails(
    tmp_path: Path, kind: str
) -> None:
    service = JobService(tmp_path / "jobs", max_bytes=10_000_000_000)
    names = [f"{number:\x01>5200}" for number in range(9)]
    if kind == "csv":
        content = gzip.compress(f"text,{','.join(names)}\n".encode() + b"good,,,,,,,,,\n" * 1_000)
    else:
        file = io.BytesIO()
        columns = {"text": ["good"] * 1_000} | dict.fromkeys(names, [""] * 1_000)
        pq.write_table(pa.table(columns), file, store_schema=False)
        content = file.getvalue()
    async with service.client() as client:
        job = await add(client, content, to="jsonl", **{"from": kind})
        service.runner.start()
        report = await ended(client, job)
        assert report["state"] == "failed"
        assert "up to row 1,000 its output takes more than 256 MiB" in report["reason"]
        used = sum(file.stat().st_size for file in (service.jobs.folder / job).iterdir())
        assert used < 10_000
    await service.runner.stop()


async def test_result_that_is_deleted_while_it_is_sent_comes_whole(
    service: JobService, client: httpx.AsyncClient
) -> None:
    job = await add(client, LONG)
    await ended(client, job)
    whole = (await client.get(f"/jobs/{job}/result")).content
    parts: list[bytes] = []
    deleted = False

    async def send(message: Message) -> None:
        nonlocal deleted
        if message["type"] == "http.response.start":
            assert message["status"] == 200
            assert (await client.delete(f"/jobs/{job}")).status_code == 204
            deleted = True
        else:
            parts.append(message["body"])

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    scope: Scope = {
        "type": "http", "method": "GET", "path": f"/jobs/{job}/result", "query_string": b"",
        "headers": [(b"x-caller", b"ann"), (b"host", b"test")],
    }  # fmt: skip
    await service.app(scope, receive, send)
    assert deleted
    assert b"".join(parts) == whole
    assert (await client.get(f"/jobs/{job}/result")).status_code == 404


async def test_result_that_is_gone_when_it_is_opened_is_none(tmp_path: Path) -> None:
    response = OpenFileResponse(tmp_path / "gone", media_type="text/csv")
    transport = httpx.ASGITransport(ProblemMiddleware(response))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert (await http.get("/")).status_code == 404


async def test_jobs_that_wait_for_each_others_room_do_not_wait_for_ever(tmp_path: Path) -> None:
    service = JobService(tmp_path / "jobs", max_bytes=1_000_000)
    # All but one are rejected, each with a line of 88 bytes.
    rows = gzip.compress(b"text\ngood\n" + b'""\n' * 4_500)
    jobs = {}
    for caller in ("ann", "bob", "cem"):
        async with service.client(caller) as client:
            jobs[caller] = await add(client, rows, versions="v1")
            # As if it had written so much in an earlier turn.
            (service.jobs.folder / jobs[caller] / "result.csv.partial").write_bytes(bytes(400_000))
    service.runner.start()
    states = []
    for caller, job in jobs.items():
        async with service.client(caller) as client:
            states.append((await ended(client, job))["state"])
    assert sorted(states) == ["done", "done", "failed"]
    await service.runner.stop()


async def test_uploads_that_still_come_count_in_the_share_of_their_caller(
    service: JobService, client: httpx.AsyncClient
) -> None:
    for _ in range(2):
        service.jobs.new_upload("ann").write_bytes(bytes(2_600_000))
    refused = await client.post("/jobs", content=ROWS, headers=CSV)
    assert (refused.status_code, refused.headers["retry-after"]) == (507, "60")
    assert "All jobs of a caller may use 5,000,000 bytes" in refused.json()["detail"]
    async with service.client("bob") as bob:
        assert (await bob.post("/jobs", content=ROWS, headers=CSV)).status_code == 201


async def test_caller_whose_jobs_use_their_share_is_refused_and_others_are_not(
    service: JobService, client: httpx.AsyncClient
) -> None:
    job = await add(client)
    await ended(client, job)
    folder = service.jobs.folder / job
    seen = folder.stat().st_mtime_ns
    (folder / "result.csv.rest").write_bytes(bytes(6_000_000))
    os.utime(folder, ns=(seen, seen))  # as within a tick of the kernel's clock
    refused = await client.post("/jobs", content=ROWS, headers=CSV)
    assert (refused.status_code, refused.headers["retry-after"]) == (507, "60")
    assert "of a caller" in refused.json()["detail"]
    async with service.client("bob") as bob:
        assert (await ended(bob, await add(bob)))["state"] == "done"


async def test_job_that_waits_lets_others_go_first(
    service: JobService, client: httpx.AsyncClient
) -> None:
    service.v2.is_down = True
    waits = await add(client)
    assert (await ended(client, waits, "waiting"))["reason"] == "Model v2 is down"
    assert (await ended(client, await add(client, versions="v1")))["state"] == "done"
    service.v2.is_down = False
    assert (await ended(client, waits))["state"] == "done"


async def test_job_whose_runner_takes_nothing_any_more_lets_others_go_first(
    service: JobService, client: httpx.AsyncClient
) -> None:
    service.v2.overloads = 1_000_000
    waits = await add(client)
    assert "too much to do" in (await ended(client, waits, "waiting"))["reason"]
    # Of the same caller too.
    assert (await ended(client, await add(client, versions="v1")))["state"] == "done"
    async with service.client("bob") as bob:
        assert (await ended(bob, await add(bob, versions="v1")))["state"] == "done"
    assert (await ended(client, waits, "waiting"))["scored"] == 0
    service.v2.overloads = 0
    assert (await ended(client, waits))["state"] == "done"


async def test_job_of_which_processes_die_has_failed_after_three(tmp_path: Path) -> None:
    service = JobService(tmp_path / "jobs")
    async with service.client() as client:
        job = await add(client)
        stored = service.jobs.find(job)
        # As the third process left it.
        stored.write_status(JobStatus("running", attempts=3))
        service.runner.start()
        report = await ended(client, job)
        assert (report["state"], report["scored"]) == ("failed", 0)
        assert "died of it 3 times" in report["reason"]
    await service.runner.stop()


async def test_text_that_ends_each_runner_is_rejected_and_its_neighbours_are_scored(
    service: JobService, client: httpx.AsyncClient
) -> None:
    service.v1.deadly, service.v1.deaths_per_call = "number 2500", MAX_LOST
    report = await ended(client, await add(client, LONG))
    assert (report["state"], report["scored"], report["rejected"]) == ("done", 2_999, 1)
    [row] = report["rejected_rows"]
    assert (row["line"], row["reason"]) == (2_502, "text: each runner that got it ended")
    # Of the piece, of an eighth of it, and of the text alone.
    assert service.v1.deaths == 3 * MAX_LOST


async def test_text_that_ends_each_runner_is_found_also_while_others_take_their_turns(
    service: JobService, client: httpx.AsyncClient
) -> None:
    """Each time that the job gives way, it begins the chunk with that text again."""
    service.v1.deadly, service.v1.away_calls = "number 2500", 2
    service.v2.is_down = True
    async with service.client("bob") as bob:
        waits = await add(bob, versions="v2")
        report = await ended(client, await add(client, LONG, versions="v1"))
        assert (report["state"], report["rejected"]) == ("done", 1)
        assert service.v1.deaths <= 2 * MAX_LOST
        service.v2.is_down = False
        assert (await ended(bob, waits))["state"] == "done"


async def test_runner_that_ends_of_any_text_keeps_the_job_waiting(
    service: JobService, client: httpx.AsyncClient
) -> None:
    service.v1.deadly = ""
    job = await add(client, LONG)
    report = await ended(client, job, "waiting")
    await until(lambda: service.v1.deaths >= 8)
    assert report["reason"] == "Runners end, also of a harmless text"
    service.v1.deadly = None
    report = await ended(client, job)
    assert (report["state"], report["scored"], report["rejected"]) == ("done", 3_000, 0)


async def test_job_with_too_many_texts_that_end_runners_has_failed(
    service: JobService, client: httpx.AsyncClient
) -> None:
    service.v1.deadly, service.v1.deaths_per_call = "number 25", MAX_LOST
    report = await ended(client, await add(client, LONG))
    assert report["state"] == "failed"
    assert report["reason"] == "Each runner that got one of more than 5 of its texts ended"


async def test_job_waits_while_the_hosts_of_a_version_hold_different_models(
    service: JobService, client: httpx.AsyncClient
) -> None:
    service.v2.converged = False
    job = await add(client)
    report = await ended(client, job, "waiting")
    assert report["reason"] == "The hosts of model v2 hold different models"
    service.v2.converged = True
    assert (await ended(client, job))["state"] == "done"


async def test_job_goes_on_with_the_runner_that_comes_after(
    service: JobService, client: httpx.AsyncClient
) -> None:
    """What ended some runners was something else, such as a text of another caller."""
    service.v1.deadly, service.v1.most_deaths = "number 2500", 1 + MAX_LOST
    report = await ended(client, await add(client, LONG, versions="v1"))
    assert (report["state"], report["scored"]) == ("done", 3_000)
    assert service.v1.deaths == service.v1.most_deaths


async def test_service_that_stops_in_time_does_not_count_against_a_job(
    service: JobService, client: httpx.AsyncClient
) -> None:
    service.v1.gate.clear()
    job = await add(client)
    await service.v1.entered.wait()
    assert service.jobs.find(job).status().attempts == 1
    service.v1.gate.set()
    await ended(client, job)
    assert service.jobs.find(job).status().attempts == 0


async def test_callers_take_turns(tmp_path: Path) -> None:
    service = JobService(tmp_path / "jobs")
    async with service.client("ann") as ann, service.client("bob") as bob:
        of_ann = [await add(ann) for _ in range(3)]
        of_bob = await add(bob)
        service.runner.start()
        reports = [await ended(ann, job) for job in of_ann]
        of_bob_at = (await ended(bob, of_bob))["finished_at"]
        assert reports[0]["finished_at"] < of_bob_at < reports[1]["finished_at"]
    await service.runner.stop()


async def test_long_job_steps_aside_for_other_callers_and_goes_on(tmp_path: Path) -> None:
    service = JobService(tmp_path / "jobs", turn_seconds=0)
    callers = ("ann", "bob", "cid")
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(service.client(name)) for name in callers]
        jobs = [await add(clients[0], LONG), await add(clients[1], LONG), await add(clients[2])]
        service.runner.start()
        reports = [await ended(*of) for of in zip(clients, jobs, strict=True)]
        alone = await add(clients[2], LONG)
        reports.append(await ended(clients[2], alone))
        assert [report["scored"] for report in reports] == [3_000, 3_000, 2, 3_000]
        ends = [report["finished_at"] for report in reports]
        assert ends[2] < ends[0] < ends[1] < ends[3]
        results = [await clients[0].get(f"/jobs/{jobs[0]}/result")]
        results.append(await clients[2].get(f"/jobs/{alone}/result"))
        assert results[0].text == results[1].text
    await service.runner.stop()


async def test_job_that_reads_all_of_long_texts_asks_for_few_at_a_time(
    service: JobService, client: httpx.AsyncClient
) -> None:
    text = "x" * 5_000
    content = "id,text\n" + "".join(f"{number},{text}\n" for number in range(30))
    truncated = await ended(client, await add(client, content, versions="v1"))
    assert (truncated["scored"], service.v1.sizes.copy()) == (30, [4] * 7 + [2])
    service.v1.sizes.clear()
    whole = await ended(client, await add(client, content, versions="v1", long_text="windows"))
    # Of 1,252 tokens each, by estimate; a piece has 2,048.
    assert (whole["scored"], service.v1.sizes) == (30, [1] * 30)


async def test_short_jobs_wait_for_one_turn_of_a_long_one_and_not_each_for_another(
    tmp_path: Path,
) -> None:
    # On a busy machine the short ones take some tenths of a second, and have one turn as well.
    service = JobService(tmp_path / "jobs", turn_seconds=1.5)
    service.v1.pause_seconds = 0.2
    async with service.client("ann") as ann, service.client("bob") as bob:
        long = await add(ann, LONG, versions="v1")
        service.runner.start()
        await service.v1.entered.wait()
        first, *others = [await add(bob, versions="v2") for _ in range(5)]
        await ended(bob, first)
        before = len(service.v1.sizes)
        for job in others:
            await ended(bob, job)
        # One more turn of the long one, which ends with its chunk, where the disk stands still.
        assert len(service.v1.sizes) <= before + 16
        assert (await ended(ann, long))["scored"] == 3_000
    await service.runner.stop()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(gzip.compress(LONG.encode())[:4_000], "gzip")],
)
async def test_file_that_breaks_off_fails_with_the_reason(
    client: httpx.AsyncClient, content: bytes, reason: str
) -> None:
    reply = await client.post("/jobs", content=content, headers=CSV)
    if reply.status_code == 422:
        assert reason in reply.json()["detail"]
        return
    report = await ended(client, reply.json()["id"])
    assert report["state"] == "failed"
    assert reason in report["reason"]


async def test_file_of_which_no_row_could_be_scored_fails_with_the_rows(
    client: httpx.AsyncClient,
) -> None:
    job = await add(client, "id,text\n1,\n2, \n")
    report = await ended(client, job)
    assert (report["state"], report["scored"], report["rejected"]) == ("failed", 0, 2)
    assert report["reason"].startswith("all 2 rows were rejected, the first in line 2: text: ")
    assert [row["line"] for row in report["rejected_rows"]] == [2, 3]
    assert (await client.get(f"/jobs/{job}/result")).status_code == 409
    rejected = await client.get(f"/jobs/{job}/rejected")
    assert [msgspec.json.decode(line)["line"] for line in rejected.content.splitlines()] == [2, 3]
    # A file without rows is no fault.
    empty = await add(client, "id,text\n")
    assert (await ended(client, empty))["state"] == "done"
    rejected = await client.get(f"/jobs/{empty}/rejected")
    assert (rejected.status_code, rejected.content) == (200, b"")
    assert rejected.headers["content-type"] == "application/jsonlines"


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A folder of files, with one beside it that may not be read."""
    folder = tmp_path / "inputs"
    (folder / "sub").mkdir(parents=True)
    (folder / "reviews.csv").write_text(ROWS)
    (folder / "sub" / "more.csv").write_text(ROWS)
    (tmp_path / "secret.csv").write_text(ROWS)
    (folder / "out.csv").symlink_to(tmp_path / "secret.csv")
    (folder / "up").symlink_to(tmp_path)
    (folder / "inside.csv").symlink_to(folder / "reviews.csv")
    (folder / "circle.csv").symlink_to(folder / "circle.csv")
    os.mkfifo(folder / "pipe.csv")
    return folder


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("reviews.csv", 201), ("sub/more.csv", 201), ("sub/../reviews.csv", 201),
        ("inside.csv", 201), ("{inputs}/reviews.csv", 201),
        ("circle.csv", 422), ("out.csv", 422), ("up/secret.csv", 422), ("../secret.csv", 422),
        ("/etc/passwd.csv", 422), ("{inputs}/../secret.csv", 422), ("nothing.csv", 422),
        ("sub", 422), ("pipe.csv", 422),
        ("reviews.csv\0", 422), ("a" * 4_000 + ".csv", 422), ("", 422), ("reviews", 422),
    ],
)  # fmt: skip
async def test_path_is_scored_if_it_is_a_file_in_an_allowed_folder(
    tmp_path: Path, inputs: Path, name: str, status: int
) -> None:
    service = JobService(tmp_path / "jobs", input_folders=[inputs])
    async with service.client() as client:
        reply = await client.post("/jobs", params={"path": name.format(inputs=inputs)})
        assert reply.status_code == status, reply.text
        if status == 201:
            service.runner.start()
            report = await ended(client, reply.json()["id"])
            assert (report["state"], report["scored"]) == ("done", 2)
            await service.runner.stop()
            assert (inputs / "reviews.csv").read_text() == ROWS


async def test_file_that_becomes_a_link_out_of_its_folder_fails(
    tmp_path: Path, inputs: Path
) -> None:
    service = JobService(tmp_path / "jobs", input_folders=[inputs])
    async with service.client() as client:
        job = (await client.post("/jobs", params={"path": "reviews.csv"})).json()["id"]
        (inputs / "reviews.csv").unlink()
        (inputs / "reviews.csv").symlink_to(tmp_path / "secret.csv")
        service.runner.start()
        report = await ended(client, job)
        await service.runner.stop()
    assert (report["state"], report["scored"]) == ("failed", 0)
    assert report["reason"].startswith("path: is no file")


async def test_sweep_removes_old_results_and_what_dead_processes_left(
    service: JobService, client: httpx.AsyncClient
) -> None:
    old, new = await add(client), await add(client)
    for job in (old, new):
        await ended(client, job)
    stored = service.jobs.find(old)
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    stored.write_status(JobStatus("done", 1.0, finished_at=long_ago))
    upload = service.jobs.new_upload("ann")
    growing = service.jobs.new_upload("ann")
    for path in (*upload.parent.iterdir(), upload.parent):
        os.utime(path, (0, 0))
    service.jobs.sweep()
    names = {path.name for path in service.jobs.folder.iterdir() if path.is_dir()}
    assert names == {new, growing.parent.name}


async def test_old_results_are_removed_while_a_long_job_runs(tmp_path: Path) -> None:
    service = JobService(tmp_path / "jobs", sweep_seconds=0.1)
    service.runner.start()
    async with service.client() as client:
        old = await add(client)
        await ended(client, old)
        service.v1.gate.clear()
        service.v1.entered.clear()
        running = await add(client, LONG)
        await service.v1.entered.wait()
        long_ago = datetime.now(UTC) - timedelta(hours=2)
        service.jobs.find(old).write_status(JobStatus("done", 1.0, finished_at=long_ago))
        await until(lambda: [str(job.request.id) for job in service.jobs.jobs()] == [running])
        service.v1.gate.set()
        assert (await ended(client, running))["state"] == "done"
    await service.runner.stop()


UPLOADING = """
import sys
from pathlib import Path
from tests.integration.scoring.jobs import JobService
upload = JobService(Path(sys.argv[1])).jobs.new_upload("ann")
upload.write_bytes(bytes(5_200_000))
print(upload.parent.name, flush=True)
sys.stdin.read()
"""


async def test_upload_of_a_killed_process_goes_at_the_next_sweep_and_one_that_comes_stays(
    service: JobService, client: httpx.AsyncClient
) -> None:
    coming = service.jobs.new_upload("bob")
    script = (sys.executable, "-c", UPLOADING, str(service.jobs.folder))
    process = await asyncio.create_subprocess_exec(*script, stdin=PIPE, stdout=PIPE)
    assert process.stdout is not None
    broken = (await process.stdout.readline()).decode().strip()
    service.jobs.sweep()
    refused = await client.post("/jobs", content=ROWS, headers=CSV)
    assert refused.status_code == 507
    process.kill()
    await process.wait()
    service.jobs.sweep()
    names = {path.name for path in service.jobs.folder.iterdir()}
    assert (broken in names, coming.parent.name in names) == (False, True)
    job = await add(client)
    assert OWNER not in {path.name for path in service.jobs.find(job).folder.iterdir()}
    service.jobs.drop_upload(coming)
    assert not coming.parent.exists()
