"""What a served Bento tells of its requests: to its collector alone, and what to it."""

from __future__ import annotations

import ast
import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.served.collector import Collector, Seen, collecting
from tests.serving import STOP_SECONDS, Serve, ServedBento
from tests.waiting import until, wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
SECRET = "What nobody else is to read."
# Writes a line for each name that a process asks DNS for, and for its own start or fork.
AUDIT = """
import os, sys

file = os.open({file!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def begin():
    os.write(file, f"('process', {{os.getpid()}})\\n".encode())

def audit(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        os.write(file, f"('name', {{arguments[0]!r}})\\n".encode())

sys.addaudithook(audit)
os.register_at_fork(after_in_child=begin)
begin()
"""
# The manager, the fork server and the log shipper; an API process and two runners, each with the
# process that forked it.
PROCESSES = 9


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module that audits the processes which have it in their paths."""
    folder = tmp_path_factory.mktemp("audited")
    (folder / "home").mkdir()
    audit = AUDIT.format(file=str(folder / "audit"))
    (folder / "sitecustomize.py").write_text(audit)
    return folder


@pytest.fixture(scope="module")
def traced(serve_own: Serve, collector: Collector, audited: Path) -> Iterator[ServedBento]:
    with serve_own(
        "traced",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="100",
        LOG_LEVEL="DEBUG",
        PYTHONPATH=str(audited),
        HOME=str(audited / "home"),
        # As in a shell of a user, where nothing is switched off.
        BENTOML_DO_NOT_TRACK="",
        CI="",
    ) as bento:
        yield bento


async def spans_of(collector: Collector, trace: str, *names: str) -> dict[str, Seen]:
    """Of each name, the one; when all have come."""
    await until(lambda: set(names) <= {span.name for span in collector.of_trace(trace)})
    spans = collector.of_trace(trace)
    assert set(Counter(span.name for span in spans).values()) == {1}
    return {span.name: span for span in spans}


async def test_request_is_one_trace_over_all_processes(
    traced: ServedBento, collector: Collector
) -> None:
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "X-Request-Id": "traced-1"}
    with traced.client() as client:
        reply = client.post("/predict", json={"text": SECRET}, headers=headers)
    assert reply.status_code == 200
    names = (
        "POST /predict", "cache.lookup", "classify", "runner.call", "runner.classify", "tokenise",
        "queue", "inference", "log.record",
    )  # fmt: skip
    spans = await spans_of(collector, TRACE, *names)
    assert set(spans) == set(names)
    parents = {name: span.parent for name, span in spans.items()}
    root = spans["POST /predict"]
    assert root.parent == CALLER
    assert root.attributes["sentiment.request_id"] == "traced-1"
    assert root.attributes["http.response.status_code"] == 200
    assert parents["cache.lookup"] == parents["classify"] == parents["log.record"] == root.id
    assert parents["runner.call"] == spans["classify"].id
    assert parents["runner.classify"] == spans["runner.call"].id
    in_runner = {parents[name] for name in ("tokenise", "queue", "inference")}
    assert in_runner == {spans["runner.classify"].id}
    assert {spans[name].service for name in ("runner.classify", "queue", "inference")} == {
        "sentiment-runner-v1"
    }
    assert spans["inference"].attributes["batch.texts"] == 1
    # What is written later is a trace of its own, linked to it.
    on_disk = spans["log.record"].id
    await until(lambda: any(on_disk in span.links for span in collector.spans))
    [ship] = [span for span in collector.spans if on_disk in span.links]
    assert (ship.name, ship.service) == ("log.ship", "sentiment-log-shipper")
    assert SECRET not in str(collector.spans)
    # And the log names it.
    lines = [json.loads(line) for line in traced.log.read_text().splitlines()]
    [line] = [line for line in lines if line.get("request_id") == "traced-1"]
    assert line["trace_id"] == TRACE


async def test_requests_that_share_a_batch_keep_their_own_spans(
    traced: ServedBento, collector: Collector
) -> None:
    texts = [f"Many at once, {number}." for number in range(60)]
    async with traced.async_client() as client:
        replies = await asyncio.gather(
            *(client.post("/predict", json={"text": text, "version": "v2"}) for text in texts)
        )
    assert {reply.status_code for reply in replies} == {200}

    def spans(name: str) -> dict[str, Seen]:
        return {
            span.id: span
            for span in collector.spans
            if span.name == name and span.attributes.get("version", "v2") == "v2"
        }

    await until(lambda: len(spans("runner.call")) == len(spans("classify")) == len(texts))
    calls = spans("runner.call")
    assert {call.parent for call in calls.values()} == spans("classify").keys()

    def answered() -> dict[str, Seen]:
        return {id_: span for id_, span in spans("runner.classify").items() if span.parent in calls}

    await until(lambda: len(answered()) == len(texts))
    assert {span.parent for span in answered().values()} == calls.keys()

    def inferences() -> list[Seen]:
        return [span for span in spans("inference").values() if span.parent in answered()]

    await until(lambda: len(inferences()) == len(texts))
    assert max(int(span.attributes["batch.texts"]) for span in inferences()) > 1


async def test_unsampled_request_exports_no_span(traced: ServedBento, collector: Collector) -> None:
    unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    with traced.client() as client:
        for number in range(3):
            body = {"text": f"Not looked at, {number}."}
            client.post("/predict", json=body, headers={"traceparent": unsampled})
        client.get("/readyz")
        client.post(
            "/predict", json={"text": ""}, headers={"traceparent": f"00-{TRACE[::-1]}-{CALLER}-01"}
        )
    await until(lambda: bool(collector.of_trace(TRACE[::-1])))
    [refused] = collector.of_trace(TRACE[::-1])
    assert refused.attributes["http.response.status_code"] == 422
    assert collector.of_trace("0af7651916cd43dd8448eb211c80319c") == []
    assert "/readyz" not in str(collector.spans)


def test_failed_request_is_logged_by_id_without_its_text(
    traced: ServedBento,
) -> None:
    texts = [f"What nobody else is to read, {number}. " * 50 for number in range(100)]
    headers = {"X-Request-Id": "told-once", "X-Request-Timeout-Ms": "1"}
    with traced.client() as client:
        reply = client.post("/predict/batch", json={"texts": texts}, headers=headers)
    assert reply.status_code == 504
    assert reply.headers["x-request-id"] == reply.json()["request_id"] == "told-once"
    # What writes the log does not keep the reply waiting.
    wait_until(lambda: '"told-once"' in traced.log.read_text())
    lines = [json.loads(line) for line in traced.log.read_text().splitlines()]
    [line] = [line for line in lines if line.get("request_id") == "told-once"]
    assert (line["level"], line["endpoint"], line["status"]) == ("debug", "/predict/batch", 504)
    assert {"sentiment:1", "sentiment_runner_v1:1", "serve"} <= {
        line["component"] for line in lines
    }
    assert "nobody else" not in traced.log.read_text()


@pytest.mark.last
def test_served_bento_asks_dns_for_nothing_but_its_databases_and_its_collector(
    traced: ServedBento, audited: Path
) -> None:
    with traced.client() as client:
        assert client.post("/predict", json={"text": "Good."}).status_code == 200
    # What it would say of its end is heard too.
    traced.process.terminate()
    assert traced.process.wait(STOP_SECONDS) == 0
    events = [ast.literal_eval(line) for line in (audited / "audit").read_text().splitlines()]
    assert len({value for kind, value in events if kind == "process"}) >= PROCESSES
    names = {value for kind, value in events if kind == "name" and value is not None}
    assert {name for name in names - {"localhost"} if not ip_address(name).is_loopback} == set()
    assert list((audited / "home").iterdir()) == []
