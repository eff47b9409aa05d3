"""Each stored prediction is sent as a CloudEvent, at least once, however the receiver fails."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from threading import Event
from typing import Any
from uuid import UUID

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from sqlalchemy import text

from analytics.log.sinks.delivery import FRESH_SECONDS
from analytics.log.sinks.events import EventMode, EventsSink
from tests.integration.analytics.sinks.conftest import SinkLog, count
from tests.integration.analytics.sinks.receiver import Events, receiver
from tests.integration.predictions import make_prediction
from tests.waiting import until

TOKEN = "a-token-that-nobody-may-see"


def sink(url: str, mode: EventMode = "batch", timeout_seconds: float = 5.0) -> EventsSink:
    return EventsSink(url, source="/shop", mode=mode, token=TOKEN, timeout_seconds=timeout_seconds)


def read_by_the_official_package(event: dict[str, Any]) -> BaseCloudEvent:
    """Raises if it is no valid event."""
    kind = {"content-type": "application/cloudevents+json"}
    return from_structured_event(HTTPMessage(kind, json.dumps(event).encode()))


@pytest.mark.parametrize("mode", ["batch", "structured"])
async def test_stored_predictions_are_sent_as_events(log: SinkLog, mode: EventMode) -> None:
    with receiver() as received:
        delivery = log.delivery(sink(received.url, mode))
        made = make_prediction("Secret text.", endpoint="/predict/ab", latency_ms=1.5)
        ids = await log.store(predictions=[made]) + await log.store(149)
        await log.finish(delivery)
    assert sorted(received.ids) == sorted(ids)
    assert len(received.requests) == (3 if mode == "batch" else 150)
    request = next(each for each in received.requests if each.events[0]["id"] == ids[0])
    kind = (
        "application/cloudevents-batch+json" if mode == "batch" else "application/cloudevents+json"
    )
    assert request.headers["Content-Type"] == f"{kind}; charset=utf-8"
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    event = request.events[0]
    read = read_by_the_official_package(event)
    assert (read.get_id(), read.get_source(), read.get_time()) == (ids[0], "/shop", made.created_at)
    assert read.get_data() == event["data"]
    data = event.pop("data")
    assert event == {
        "specversion": "1.0",
        "id": str(made.id),
        "source": "/shop",
        "type": "sentiment.prediction.v1",
        "time": made.created_at.isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
    }
    assert (data["id"], data["sentiment"], data["latency_ms"]) == (ids[0], "positive", 1.5)
    assert data["endpoint"] == "/predict/ab"
    assert "text" not in data


@pytest.mark.parametrize("status", [500, 429])
async def test_a_failing_receiver_gets_the_same_events_again(log: SinkLog, status: int) -> None:
    before = count("failures", "events", reason="unavailable")
    with receiver() as received:
        received.answer = lambda _: (status if len(received.requests) < 2 else 204, {})
        delivery = log.delivery(sink(received.url))
        ids = await log.store(3)
        async with log.delivering(delivery):
            await until(lambda: delivery.waiting == 0)
    assert [len(request.events) for request in received.requests] == [3, 3, 3]
    assert sorted(received.ids) == sorted(ids)
    assert count("failures", "events", reason="unavailable") - before == 2


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_receiver_is_left_alone_for_as_long_as_it_says(log: SinkLog, form: str) -> None:
    times: list[float] = []

    def answer(_: Events) -> tuple[int, dict[str, str]]:
        times.append(time.monotonic())
        at = datetime.now(UTC) + timedelta(seconds=2)
        header = "1" if form == "seconds" else format_datetime(at, usegmt=True)
        return (429, {"Retry-After": header}) if len(times) == 1 else (202, {})

    with receiver() as received:
        received.answer = answer
        delivery = log.delivery(sink(received.url))
        await log.store(1)
        async with log.delivering(delivery):
            await until(lambda: delivery.waiting == 0)
    assert times[1] - times[0] >= 1.0


async def test_an_event_that_alone_is_refused_is_given_up_and_the_others_arrive(
    log: SinkLog, caplog: pytest.LogCaptureFixture
) -> None:
    lost = count("lost", "events")
    with receiver() as received:
        delivery = log.delivery(sink(received.url))
        ids = await log.store(20)
        received.answer = lambda events: (
            (400, {}) if any(event["id"] == ids[13] for event in events) else (202, {})
        )
        async with log.delivering(delivery):
            await until(lambda: delivery.waiting == 0)
    assert sorted(received.ids) == sorted(ids[:13] + ids[14:])
    assert count("lost", "events") - lost == 1
    assert f"refuses the event {ids[13]}, which is given up: HTTP 400" in caplog.text


@pytest.mark.parametrize("status", [301, 400, 401, 415])
async def test_a_receiver_that_refuses_everything_loses_nothing(
    log: SinkLog, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    lost = count("lost", "events")
    refused = count("failures", "events", reason="refused")
    with receiver() as received:
        received.answer = lambda _: (status, {"Location": f"{received.url}/elsewhere"})
        delivery = log.delivery(sink(received.url))
        ids = await log.store(2)
        async with log.delivering(delivery):
            await until(lambda: count("failures", "events", reason="refused") - refused >= 2)
            assert delivery.waiting == 2
            received.answer = lambda _: (202, {})
            await until(lambda: delivery.waiting == 0)
    assert sorted(received.ids) == sorted(ids)
    assert count("lost", "events") == lost
    assert f"HTTP {status}" in caplog.text


async def test_a_receiver_that_is_well_again_within_a_batch_loses_nothing(log: SinkLog) -> None:
    lost = count("lost", "events")
    with receiver() as received:
        statuses = iter([400, 400])  # to the batch, and then to its first event alone
        received.answer = lambda _: (next(statuses, 202), {})
        delivery = log.delivery(sink(received.url))
        ids = await log.store(2)
        async with log.delivering(delivery):
            await until(lambda: delivery.waiting == 0)
    assert sorted(received.ids) == sorted(ids)
    assert count("lost", "events") == lost


async def test_a_receiver_that_hangs_is_left_after_the_time_out(log: SinkLog) -> None:
    before = count("failures", "events", reason="unavailable")
    with receiver() as received:
        received.hangs.set()
        delivery = log.delivery(sink(received.url, timeout_seconds=0.2))
        ids = await log.store(3)
        async with log.delivering(delivery):
            await until(lambda: count("failures", "events", reason="unavailable") > before)
            received.hangs.clear()
            await until(lambda: delivery.waiting == 0)
            received.released.set()
            await until(lambda: len(received.requests) >= 2)
    assert set(received.ids) == set(ids)


@pytest.mark.parametrize("mode", ["batch", "structured"])
async def test_what_is_erased_while_its_batch_is_under_way_is_not_sent_any_more(
    log: SinkLog, mode: EventMode
) -> None:
    """The receiver is slow, and refuses the first of a batch, so that its halves come later."""
    began, goes_on = Event(), Event()

    def answer(events: Events) -> tuple[int, dict[str, str]]:
        began.set()
        goes_on.wait(20)
        return (400 if len(events) == 20 else 202), {}

    gone = count("gone", "events")
    with receiver() as received:
        received.answer = answer
        delivery = log.delivery(sink(received.url, mode=mode))
        ids = await log.store(20)
        async with log.delivering(delivery):
            await until(began.is_set)
            read_at = time.monotonic()
            async with log.engine.begin() as connection:
                last = {"id": UUID(ids[-1])}
                await connection.execute(text("DELETE FROM predictions WHERE id = :id"), last)
            await until(lambda: time.monotonic() > read_at + FRESH_SECONDS)
            goes_on.set()
            await until(lambda: delivery.waiting == 0)
    assert set(received.ids) == set(ids[:-1])
    assert count("gone", "events") == gone + 1


async def test_a_receiver_behind_a_slow_link_gets_smaller_batches(log: SinkLog) -> None:
    def answer(events: Events) -> tuple[int, dict[str, str]]:
        if len(events) <= 10:
            return 202, {}
        time.sleep(0.5)  # the whole body has not come
        return 400, {}

    with receiver() as received:
        received.answer = answer
        delivery = log.delivery(sink(received.url, timeout_seconds=0.2))
        ids = [*await log.store(30), *await log.store(30)]
        async with log.delivering(delivery):
            await until(lambda: delivery.waiting == 0)
    assert set(received.ids) == set(ids)


async def test_a_receiver_that_is_down_gets_what_waited_and_no_secret_is_logged(
    log: SinkLog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with receiver() as gone:
        port = int(gone.url.split(":")[2].partition("/")[0])
        url = f"{gone.url}?key=another-secret"
    delivery = log.delivery(sink(url))
    ids = await log.store(5)
    async with log.delivering(delivery):
        await until(lambda: "cannot be reached" in caplog.text)
        ids += await log.store(5)
        with receiver(port) as back:
            await until(lambda: delivery.waiting == 0)
            await until(lambda: "the sink events takes predictions again" in caplog.text)
    assert Counter(back.ids) == Counter(ids)
    assert TOKEN not in caplog.text
    assert "another-secret" not in caplog.text


async def test_predictions_past_the_bound_are_lost_to_the_sink_alone_and_counted(
    log: SinkLog, caplog: pytest.LogCaptureFixture
) -> None:
    lost = count("lost", "events")
    stored: list[str] = []
    with receiver() as received:
        received.answer = lambda _: (503, {})
        delivery = log.delivery(sink(received.url), max_predictions=1_000)
        async with log.delivering(delivery):
            for _ in range(6):
                stored += await log.store(700)
            await until(lambda: delivery.waiting <= 1_000)
            received.answer = lambda _: (202, {})
            await until(lambda: delivery.waiting == 0)
    taken = set(received.ids)
    assert count("lost", "events") - lost == len(stored) - len(taken)
    assert sorted(taken) == sorted(stored)[-len(taken) :]  # the oldest are lost
    assert 900 <= len(taken) <= 1_000
    assert await log.count_stored(stored) == len(stored)
