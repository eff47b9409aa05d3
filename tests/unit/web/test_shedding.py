"""The door: open unless the loop cannot keep up, or what is let in is refused further in."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from core.errors import DeadlineExceeded, Overloaded, RunnerUnavailable
from tests.unit.fakes import counter
from web.problems import ProblemMiddleware
from web.routes import PREDICT_ROUTES
from web.shedding import (
    BEAT_SECONDS,
    LATE_SECONDS,
    LET_IN,
    PATIENCE_SECONDS,
    QUIET_SECONDS,
    RECOVERY_SECONDS,
    EventLoopLagMonitor,
    LoadShedder,
    Throttle,
)


def beats(watch: EventLoopLagMonitor, now: float, late: float, seconds: float) -> float:
    """Beats that are each so late; the time when the last one was."""
    end = now + seconds
    while now < end:
        now += BEAT_SECONDS + late
        watch.note(now)
    return now


def test_a_loop_that_stays_late_refuses_until_it_has_been_on_time() -> None:
    watch = EventLoopLagMonitor()
    late = LATE_SECONDS + 0.01
    now = beats(watch, 0.0, 0.0, 1.0)
    now = beats(watch, now, late, PATIENCE_SECONDS / 2)
    assert not watch.refuses(now + 1.0)
    now = beats(watch, now, late, PATIENCE_SECONDS)
    assert watch.refuses(now + BEAT_SECONDS + late)
    # Who comes while it is on time is let in.
    assert not watch.refuses(now + BEAT_SECONDS)
    now = beats(watch, now, 0.0, RECOVERY_SECONDS / 2)
    assert watch.refuses(now + BEAT_SECONDS + late)
    now = beats(watch, now, 0.0, RECOVERY_SECONDS)
    assert not watch.refuses(now + 1.0)


def test_a_moment_is_let_pass() -> None:
    watch, now = EventLoopLagMonitor(), 0.0
    for _ in range(10):
        now = beats(watch, now, PATIENCE_SECONDS - 0.05, 0.01)
        assert not watch.refuses(now + 1.0)
        now = beats(watch, now, 0.0, 0.1)


async def test_a_busy_loop_is_noticed() -> None:
    watch = EventLoopLagMonitor()
    watch.start()
    loop = asyncio.get_running_loop()
    end = time.monotonic() + PATIENCE_SECONDS + 0.5
    while time.monotonic() < end:
        time.sleep(BEAT_SECONDS + LATE_SECONDS + 0.01)  # noqa: ASYNC251  this is the point
        refuses = watch.refuses(loop.time())
        await asyncio.sleep(0)
    watch.stop()
    assert refuses


def flood(throttle: Throttle, per_second: int, capacity: int, now: float, seconds: float) -> int:
    """How many are let in, of which the model answers what does not wait for more than a second."""
    let_in, waiting = 0, 0.0
    for number in range(int(per_second * seconds)):
        at = now + number / per_second
        waiting = max(0.0, waiting - capacity / per_second)
        if throttle.refuses(at):
            continue
        let_in += 1
        if waiting < capacity:
            waiting += 1
            throttle.accepted()
        else:
            throttle.refused(at)
    return let_in


def test_in_a_flood_about_as_many_are_let_in_as_can_be_answered() -> None:
    throttle = Throttle(random.Random(0).random)
    flood(throttle, 2_000, 200, 0.0, 2.0)
    let_in = flood(throttle, 2_000, 200, 2.0, 5.0)
    assert 5 * 200 < let_in < 5 * 200 * (LET_IN + 0.5)
    # And all of them once there is no more than that.
    flood(throttle, 100, 200, 7.0, QUIET_SECONDS)
    assert flood(throttle, 100, 200, 7.0 + QUIET_SECONDS, 1.0) == 100


@given(st.integers(1, 500), st.integers(0, 1))
def test_what_can_be_answered_is_all_let_in(per_second: int, spare: int) -> None:
    assert flood(Throttle(), per_second, per_second + spare, 0.0, 1.0) == per_second


def test_where_many_are_answered_from_the_cache_the_door_stays_open() -> None:
    throttle = Throttle(random.Random(0).random)
    refused = 0
    for number in range(4_000):
        now = number / 1_000
        if throttle.refuses(now):
            refused += 1
        elif number % 10 < 7:
            throttle.accepted()
        else:
            throttle.refused(now)
    assert refused < 40


async def test_it_knows_that_models_are_full_before_anybody_was_refused() -> None:
    random.seed(0)

    def let_in(door: LoadShedder) -> int:
        return sum(door.admit({}) for _ in range(200))

    assert let_in(LoadShedder(PREDICT_ROUTES, full=lambda: False)) == 200
    # All of the first few, and fewer and fewer as nothing is answered.
    assert 0 < let_in(LoadShedder(PREDICT_ROUTES, full=lambda: True)) < 40


async def test_where_what_comes_is_answered_from_the_cache_full_models_do_not_matter() -> None:
    # Until the first one is answered it lets in the n-th with a chance of 1 / (n + 1).
    random.seed(0)
    door = LoadShedder(PREDICT_ROUTES, full=lambda: True).before(app)
    replies = await ask(door, "/predict", 500)
    assert sum(reply.text == "in" for reply in replies) > 450


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("in")(scope, receive, send)


def failing(error: Callable[[], Exception]) -> ProblemMiddleware:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise error()

    return ProblemMiddleware(fail)


async def ask(door: LoadShedder, path: str, times: int = 1) -> list[httpx.Response]:
    transport = httpx.ASGITransport(door)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        return [await http.post(path) for _ in range(times)]


@pytest.mark.parametrize("path", sorted(PREDICT_ROUTES))
async def test_a_refusal_looks_like_any_other(path: str) -> None:
    door = LoadShedder(PREDICT_ROUTES).before(app)
    beats(door.watch, 0.0, 1.0, 10.0)
    before = counter("shed_requests_total", reason="event_loop")
    [reply] = await ask(door, path)
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json() == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "The service has too much to do; try again",
        "instance": path,
        "request_id": reply.headers["x-request-id"],
    }
    assert counter("shed_requests_total", reason="event_loop") == before + 1


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/metrics", "/feedback"])
async def test_how_it_does_can_always_be_asked(path: str) -> None:
    door = LoadShedder(PREDICT_ROUTES).before(app)
    beats(door.watch, 0.0, 1.0, 10.0)
    [reply] = await ask(door, path)
    assert reply.text == "in"


async def test_it_closes_when_models_have_no_time_and_for_no_other_reason() -> None:
    def details(replies: list[httpx.Response]) -> set[str]:
        return {reply.json()["detail"] for reply in replies}

    busy = LoadShedder(PREDICT_ROUTES).before(failing(lambda: Overloaded("v1 has no time")))
    assert details(await ask(busy, "/predict", 200)) == {
        "v1 has no time",
        "The service has too much to do; try again",
    }
    large = LoadShedder(PREDICT_ROUTES).before(
        failing(lambda: Overloaded("too large", of_large=True))
    )
    assert details(await ask(large, "/predict", 200)) == {"too large"}
    down = LoadShedder(PREDICT_ROUTES).before(failing(lambda: RunnerUnavailable("v1 is down")))
    assert details(await ask(down, "/predict", 200)) == {"v1 is down"}
    hasty = LoadShedder(PREDICT_ROUTES).before(failing(lambda: DeadlineExceeded("not within 1 ms")))
    assert details(await ask(hasty, "/predict", 200)) == {"not within 1 ms"}
