"""The load generator against a small HTTP server whose answers are known."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from itertools import islice

import pytest

from loadtest.generator import send_load
from loadtest.report import LoadReport
from loadtest.traffic import Kind, Traffic, make_traffic, predict
from tests.unit.tiny_server import TinyServer, response

SECONDS = 0.2


async def load(
    server: TinyServer, traffic: Traffic | None = None, *, clients: int = 4, **options: object
) -> LoadReport:
    traffic = traffic or make_traffic(Kind.distinct, seed=0)
    return await send_load(server.url, traffic, clients=clients, seconds=SECONDS, **options)  # type: ignore[arg-type]


def answered(server: TinyServer, report: LoadReport, clients: int = 4) -> None:
    """Every request has its answer; those that came after the end do not count."""
    in_time = len(report.latencies_seconds) + sum(report.failures.values())
    assert 0 <= len(server.bodies) - in_time <= clients


async def test_answers_are_counted_and_each_client_keeps_its_connection() -> None:
    async with TinyServer(lambda _: response()).running() as server:
        report = await load(server)
    assert report.failures == {}
    assert len(report.latencies_seconds) > 20
    # Those under way at the end count by the share of their time.
    assert report.requests == pytest.approx(len(report.latencies_seconds), abs=4)
    assert report.texts == report.requests
    assert server.connections == 4
    answered(server, report)


async def test_failures_are_counted_by_status() -> None:
    def answer(number: int) -> bytes:
        return response({0: 503, 1: 429}.get(number % 5, 200))

    async with TinyServer(answer).running() as server:
        report = await load(server)
    numbers = range(1, len(server.bodies) + 1)
    assert report.failures == {
        "503": sum(number % 5 == 0 for number in numbers),
        "429": sum(number % 5 == 1 for number in numbers),
    }
    answered(server, report)


@pytest.mark.parametrize("body", [b'{"error":"none"}', b"", b"<html>"])
async def test_good_status_with_another_body_is_a_failure(body: bytes) -> None:
    async with TinyServer(lambda _: response(body=body)).running() as server:
        report = await load(server)
    assert report.failures == {"body": len(server.bodies)}


async def test_now_and_then_a_body_is_parsed_whole() -> None:
    async with TinyServer(lambda _: response(body=b'"sentiment"')).running() as server:
        report = await load(server, clients=1)
    assert report.failures == {"body": len(server.bodies) // 16}


async def test_lost_connection_is_a_failure_and_the_client_comes_again() -> None:
    async with TinyServer(
        lambda number: b"" if number % 3 == 0 else response()
    ).running() as server:
        report = await load(server)
    assert report.failures == {"disconnected": len(server.bodies) // 3}
    assert server.connections > 4
    answered(server, report)


async def test_what_is_no_http_is_a_failure() -> None:
    async with TinyServer(lambda _: b"SMTP ready\r\n\r\n").running() as server:
        report = await load(server)
    assert report.failures == {"malformed": len(server.bodies)}


async def test_server_that_closes_after_each_answer_fails_nothing() -> None:
    answer = response(headers="Connection: close\r\n")
    async with TinyServer(lambda _: answer).running() as server:
        report = await load(server)
    assert report.failures == {}
    assert server.connections >= len(server.bodies) > 4
    answered(server, report)


async def test_answer_that_does_not_come_is_given_up() -> None:
    async with TinyServer(lambda _: b"HTTP/1.1 200 OK\r\n").running() as server:
        report = await load(server, answer_seconds=0.1)
    assert report.failures == {"timeout": len(server.bodies)}
    assert report.latencies_seconds == []
    assert report.figures()["p95_ms"] is None


async def test_nobody_listening_is_counted_too() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        report = await send_load(
            url, make_traffic(Kind.distinct, seed=0), clients=2, seconds=SECONDS
        )
    assert report.failures.keys() == {"ConnectionRefusedError"}


async def test_warm_up_sends_the_primer_first_and_counts_none_of_it() -> None:
    primer = [predict(f"primer {number}") for number in range(10)]
    traffic = Traffic(primer, make_traffic(Kind.distinct, seed=0).requests)

    def answer(number: int) -> bytes:
        return response(503 if number <= len(primer) else 200)

    async with TinyServer(answer).running() as server:
        report = await load(server, traffic, warm_up_seconds=0.05)
    assert sorted(server.bodies[:10]) == sorted(request.body for request in primer)
    assert report.warm_up_failures == {"503": 10}
    assert report.failures == {}
    assert 0 < report.requests < len(server.bodies) - 10


async def test_client_that_thinks_sends_no_faster_than_that() -> None:
    async with TinyServer(lambda _: response()).running() as server:
        await load(server, clients=1, think=(0.05, 0.06))
    assert 1 <= len(server.bodies) <= 4


async def test_texts_of_a_batch_are_counted() -> None:
    body = b'{"predictions":[]}'
    traffic = make_traffic(Kind.distinct, seed=0, batch_texts=10)
    async with TinyServer(lambda _: response(body=body)).running() as server:
        report = await load(server, traffic)
    assert report.texts == pytest.approx(10 * report.requests)
    assert report.texts > 10


async def test_requests_are_those_of_the_traffic_in_their_order() -> None:
    async with TinyServer(lambda _: response()).running() as server:
        await load(server, clients=1)
    sent = islice(make_traffic(Kind.distinct, seed=0).requests, len(server.bodies))
    assert server.bodies == [request.body for request in sent]
    assert "Content-Type: application/json\r\n" in server.heads[0]


@pytest.mark.parametrize(
    "url", ["http://example.org", "http://10.0.0.1:3000", "http://0.0.0.0:3000"]
)
async def test_other_machines_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="this machine only"):
        await send_load(url, make_traffic(Kind.distinct, seed=0), clients=1, seconds=1)


@pytest.mark.parametrize(
    "bounds",
    [
        {"clients": 0, "seconds": 1.0},
        {"clients": 513, "seconds": 1.0},
        {"clients": 1, "seconds": 0.0},
        {"clients": 1, "seconds": 301.0},
        {"clients": 1, "seconds": 1.0, "warm_up_seconds": 61.0},
    ],
)
async def test_load_past_the_bounds_is_refused(bounds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at most"):
        await send_load("http://127.0.0.1:1", Traffic([], iter(())), **bounds)  # type: ignore[arg-type]


async def test_process_prints_its_report_as_one_line_of_json() -> None:
    async with TinyServer(lambda _: response()).running() as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "loadtest.generator", "--url", server.url),
            *("--clients", "2", "--seconds", "0.2", "--warm-up-seconds", "0.1"),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
    assert process.returncode == 0
    [line] = output.splitlines()
    report = json.loads(line)
    assert report["failures"] == report["warm_up_failures"] == {}
    assert report["answers"] > 10
    assert report["requests_per_second"] == report["texts_per_second"]
    assert 0 < report["p50_ms"] <= report["p95_ms"] <= report["p99_ms"]
