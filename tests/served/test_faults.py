"""Processes are killed and stopped under traffic: what was acknowledged is stored, each once.

tests/prove/faults kills and stops more of them.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import psutil
import pytest

from analytics.log.segments import segments
from tests.processes import metrics_folder_of
from tests.served.stack import HANGING_SECONDS, RECOVERY_SECONDS, Stack, gone_and_back, without_disk
from tests.served.traffic import CLIENTS, FULL, traffic
from tests.waiting import until

STOP_SECONDS = 30.0
# Linux' numbers end below.
NO_PROCESS = 1 << 23


async def job_once(
    client: httpx.AsyncClient, job: str, condition: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The report of a job, once an API process answers with one of which `condition` is true."""
    async with asyncio.timeout(RECOVERY_SECONDS):
        while True:
            with suppress(httpx.TransportError):
                reply = await client.get(f"/jobs/{job}")
                if reply.status_code == 200 and condition(reply.json()):
                    report: dict[str, Any] = reply.json()
                    return report
            await asyncio.sleep(0.1)


async def test_killed_runner_fails_no_request(stack: Stack) -> None:
    async with stack.traffic() as sent:
        [runner] = stack.workers("sentiment_runner_v1")
        runner.kill()
        await sent.answers(100)
        await until(gone_and_back(stack, "sentiment_runner_v1", runner), RECOVERY_SECONDS)
    assert sent.refusals == []
    assert sent.broken == 0
    assert sent.slowest_seconds < RECOVERY_SECONDS
    await stack.stored_is_what_was_acknowledged(sent)
    lines = stack.bento.log.read_text(encoding="utf-8")
    assert f"sentiment_runner_v1 (process {runner.pid}) was killed (SIGKILL" in lines


async def test_hanging_runner_is_replaced_and_fails_no_request(stack: Stack) -> None:
    async with stack.traffic() as sent:
        [runner] = stack.workers("sentiment_runner_v1")
        runner.suspend()
        await until(lambda: not runner.is_running(), HANGING_SECONDS)
        await until(gone_and_back(stack, "sentiment_runner_v1", runner), RECOVERY_SECONDS)
        await sent.answers(100)
    assert (sent.refusals, sent.broken) == ([], 0)
    assert sent.slowest_seconds < RECOVERY_SECONDS
    await stack.stored_is_what_was_acknowledged(sent)
    lines = stack.bento.log.read_text(encoding="utf-8")
    assert f"sentiment_runner_v1 (process {runner.pid}) hangs: it is killed" in lines


async def test_job_of_killed_api_workers_goes_on_where_it_was(stack: Stack) -> None:
    rows = 1_100  # a chunk has 1,024
    content = "id,text\n" + "".join(f"{row},A film of {row} words.\n" for row in range(rows))

    async with stack.bento.async_client() as client:
        reply = await client.post(
            "/jobs",
            content=content,
            params={"versions": "v1", "id": "id"},
            headers={"Content-Type": "text/csv"},
        )
        job = reply.json()["id"]
        await job_once(client, job, lambda report: report["scored"] > 0)
        for worker in stack.workers("--service-name sentiment --backlog"):
            worker.kill()
        status = await job_once(client, job, lambda report: report["state"] == "done")
        result = await client.get(f"/jobs/{job}/result")
        await client.delete(f"/jobs/{job}")
    assert (status["scored"], status["rejected"]) == (rows, 0)
    ids = [line.split(",")[0] for line in result.text.splitlines()]
    assert ids == ["id", *map(str, range(rows))]


async def test_metrics_of_killed_processes_are_merged(stack: Stack) -> None:
    """Also those that a process left torn; and no process stays in progress for ever."""
    [runner] = stack.workers("sentiment_runner_v1")
    folder = metrics_folder_of(runner)
    (folder / f"counter_{NO_PROCESS}.db").touch()
    (folder / f"histogram_{NO_PROCESS}.db").write_bytes(b"\xff" * 100)
    batches = stack.bento.metric("model_batch_texts_count", version="v1")
    async with stack.traffic() as sent:
        await sent.answers(100)
        runner.kill()
        await sent.answers(100)
        await until(gone_and_back(stack, "sentiment_runner_v1", runner), RECOVERY_SECONDS)

    def is_merged() -> bool:
        living = {process.pid for process in psutil.Process(stack.bento.process.pid).children(True)}
        names = [file.stem.rpartition("_")[2] for file in folder.glob("*.db")]
        return all(name == "merged" or int(name) in living for name in names)

    await until(is_merged, RECOVERY_SECONDS)
    with stack.bento.client() as http:
        for path in ("/metrics", "/cache/stats", "/log/stats"):
            assert http.get(path).status_code == 200
    assert stack.bento.metric("model_batch_texts_count", version="v1") > batches
    in_progress = "bentoml_service_request_in_progress"
    await until(lambda: stack.bento.metric(in_progress, service_name="sentiment_runner_v1") == 0)


async def test_full_disk_under_the_spool_refuses_requests_with_503(
    stack: Stack,
) -> None:
    async with stack.traffic() as sent:
        with without_disk(stack.workers("--service-name sentiment --backlog")):
            await until(lambda: sent.readiness[503] > 0)
            refused = len(sent.refusals)
            await until(lambda: len(sent.refusals) > refused + 100)
        await sent.answers(200)
    assert set(sent.statuses) == {200, 503}
    assert set(sent.refusals) == {"Predictions cannot be recorded now; try again"}
    assert sent.broken == 0
    await stack.stored_is_what_was_acknowledged(sent)


async def test_all_workers_killed_at_once_lose_no_acknowledged_prediction(stack: Stack) -> None:
    async with stack.traffic() as sent:
        for of in ("sentiment_runner_v1", "sentiment_runner_v2", "analytics.log"):
            for process in stack.workers(of):
                process.kill()
        stack.workers("--service-name sentiment --backlog")[0].kill()
        await sent.answers(300)
    assert set(sent.statuses) <= {200, 503}
    assert sent.broken <= CLIENTS
    await stack.stored_is_what_was_acknowledged(sent)


async def predictions_of_every_endpoint(client: httpx.AsyncClient) -> list[str]:
    """Ask each endpoint that predicts, once; the ids."""
    body = {"text": "Asked just before the end."}
    one, subject, batch, compared = [
        (await client.post(path, json=body)).raise_for_status().json()
        for path, body in (
            ("/predict", body),
            ("/predict/ab", body),
            ("/predict/batch", {"texts": ["Asked with another.", "Another."]}),
            ("/predict/ab-compare", body),
        )
    ]
    several = [*batch["predictions"], *compared["predictions"].values()]
    return [each["id"] for each in (one, subject, *several)]


@pytest.mark.last  # later workers would start slowly
async def test_runner_starts_without_a_killed_fork_server_and_fails_no_request(
    stack: Stack,
) -> None:
    [forks] = stack.workers("fork_server.py")
    [runner] = stack.workers("sentiment_runner_v1")
    async with stack.traffic() as sent:
        forks.kill()
        runner.kill()
        await until(gone_and_back(stack, "sentiment_runner_v1", runner), RECOVERY_SECONDS)
        await sent.answers(100)
    assert (sent.refusals, sent.broken) == ([], 0)
    assert stack.bento.log.read_text().count("the fork server is lost") == 1


@pytest.mark.last
async def test_sigterm_under_load_finishes_open_requests_and_stores_all(stack: Stack) -> None:
    process = stack.bento.process
    async with stack.bento.async_client() as client, traffic(stack.bento, FULL) as sent:
        sent.acknowledged += await predictions_of_every_endpoint(client)
        sent.stopping = True  # what is under way is to be answered
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_SECONDS):
            assert await asyncio.to_thread(process.wait) == 0
    assert (sent.refusals, sent.broken) == ([], 0)
    assert segments(stack.spool) == []
    await stack.stored_is_what_was_acknowledged(sent)
