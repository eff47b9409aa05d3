"""Requests are shed while the loop cannot keep up, or while models refuse what is admitted."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from types import MappingProxyType

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import DeadlineExceeded, Overloaded, RunnerUnavailable
from core.request_context import RequestContext, context_of
from tests.unit.fakes import counter
from tests.unit.web.apart import apart
from web.problems import ProblemMiddleware
from web.routes import ERROR_TEXT_PREFIXES, JSON_ERROR_PREFIX, PREDICT_PATHS, route_of
from web.shedding import (
    ADMITTED_PER_ANSWERED,
    BEAT_SECONDS,
    FEW_PER_SECOND,
    LAG_SECONDS,
    MOST_LAG_SECONDS,
    PATIENCE_SECONDS,
    QUIET_SECONDS,
    RECOVERY_SECONDS,
    EventLoopLagMonitor,
    LoadShedder,
    LoadSheddingMiddleware,
    Throttle,
)


def beats(monitor: EventLoopLagMonitor, now: float, late: float, seconds: float) -> float:
    """Beats that are each so late; the time when the last one was."""
    end = now + seconds
    while now < end:
        now += BEAT_SECONDS + late
        monitor.record_beat(now)
    return now


def test_loop_that_stays_late_is_overloaded_until_it_has_been_on_time() -> None:
    monitor = EventLoopLagMonitor()
    late = LAG_SECONDS + 0.01
    now = beats(monitor, 0.0, 0.0, 1.0)
    now = beats(monitor, now, late, PATIENCE_SECONDS / 2)
    assert not monitor.is_overloaded(now + 1.0)
    now = beats(monitor, now, late, PATIENCE_SECONDS)
    assert monitor.is_overloaded(now + BEAT_SECONDS + late)
    # A request that comes while it is on time is admitted.
    assert not monitor.is_overloaded(now + BEAT_SECONDS)
    now = beats(monitor, now, 0.0, RECOVERY_SECONDS / 2)
    assert monitor.is_overloaded(now + BEAT_SECONDS + late)
    now = beats(monitor, now, 0.0, RECOVERY_SECONDS)
    assert not monitor.is_overloaded(now + 1.0)


def test_moment_of_lag_is_allowed() -> None:
    monitor, now = EventLoopLagMonitor(), 0.0
    for _ in range(10):
        now = beats(monitor, now, PATIENCE_SECONDS - 0.05, 0.01)
        assert not monitor.is_overloaded(now + 1.0)
        now = beats(monitor, now, 0.0, 0.1)


async def test_busy_loop_is_noticed() -> None:
    monitor = EventLoopLagMonitor()
    monitor.start()
    loop = asyncio.get_running_loop()
    end = time.monotonic() + PATIENCE_SECONDS + 0.5
    while time.monotonic() < end:
        time.sleep(BEAT_SECONDS + LAG_SECONDS + 0.01)  # noqa: ASYNC251  this is the point
        overloaded = monitor.is_overloaded(loop.time())
        await asyncio.sleep(0)
    monitor.stop()
    assert overloaded


# Callers, of whom some share a counter.
MANY = 10


def flood(throttle: Throttle, per_second: int, capacity: int, now: float, seconds: float) -> int:
    """How many of one caller are admitted."""
    return flood_of(throttle, {"": per_second}, capacity, now, seconds).total()


def flood_of(
    throttle: Throttle,
    per_second: Mapping[str, float],
    capacity: int,
    now: float,
    seconds: float,
    *,
    costs: Mapping[str, float] = MappingProxyType({}),
) -> Counter[str]:
    """How many of each are admitted; the model answers those that wait for a second at most.

    As the admission of runners has it, what waits for half a second is of one caller at most, if
    there are others. A request costs what `costs` says, or else 1 of the `capacity` a second.
    """
    draw = random.Random(1)
    requests = sorted(
        (now + (number + draw.random()) / rate, caller)
        for caller, rate in per_second.items()
        for number in range(int(rate * seconds))
    )
    most = capacity / 2 if len(per_second) > 1 else capacity
    admitted, before = Counter[str](), now
    # All of the callers are served at the same pace.
    waiting: defaultdict[str, float] = defaultdict(float)
    total, left = 0.0, 1.0
    for at, caller in requests:
        served, before = capacity * (at - before), at
        if served >= total * 0.99:
            waiting.clear()
            total, left = 0.0, 1.0
        else:
            left *= 1 - served / total
            total -= served
        is_active = throttle.is_active(at)
        name = apart(caller) if len(per_second) < MANY else caller
        bucket = throttle.admit(at, name) if is_active else None
        if is_active and bucket is None:
            continue
        admitted[caller] += 1
        answered = waiting[caller] * left < most and total < capacity
        if answered:
            waiting[caller] += costs.get(caller, 1.0) / left
            total += costs.get(caller, 1.0)
        throttle.record(at, bucket, answered=answered)
    return admitted


def test_flood_admits_about_as_many_as_can_be_answered() -> None:
    throttle = Throttle(random.Random(0).random)
    flood(throttle, 2_000, 200, 0.0, 4.0)
    admitted = flood(throttle, 2_000, 200, 4.0, 5.0)
    assert 5 * 200 < admitted < 5 * 200 * (ADMITTED_PER_ANSWERED + 0.5)
    # And all of them once there is no more than that.
    flood(throttle, 100, 200, 9.0, QUIET_SECONDS)
    assert flood(throttle, 100, 200, 9.0 + QUIET_SECONDS, 1.0) == 100


def test_flood_that_follows_upon_a_smaller_one_is_noticed_within_a_second() -> None:
    throttle = Throttle(random.Random(0).random)
    flood(throttle, 400, 200, 0.0, 10.0)
    flood(throttle, 4_000, 200, 10.0, 1.0)
    admitted = flood(throttle, 4_000, 200, 11.0, 2.0)
    assert 2 * 200 <= admitted < 2 * 200 * 2 * ADMITTED_PER_ANSWERED


@given(st.integers(1, 500), st.integers(0, 1))
def test_everything_is_admitted_that_can_be_answered(per_second: int, spare: int) -> None:
    assert flood(Throttle(), per_second, per_second + spare, 0.0, 1.0) == per_second


def test_caller_who_sends_much_is_refused_and_those_who_send_little_are_not() -> None:
    throttle = Throttle(random.Random(0).random)
    callers = {"much": 2_000.0, **{f"little {number}": 10.0 for number in range(5)}}
    flood_of(throttle, callers, 200, 0.0, 4.0)
    admitted = flood_of(throttle, callers, 200, 4.0, 5.0)
    assert all(admitted[caller] >= 49 for caller in callers if caller != "much")
    # The rest is left to it.
    assert 5 * 150 < admitted["much"] < 5 * 200 * (ADMITTED_PER_ANSWERED + 0.5)


@pytest.mark.parametrize("rate", [5.0, 15.0, 100.0])
@pytest.mark.parametrize("cost", [1.0, 20.0, 200.0])
def test_little_is_admitted_whatever_the_requests_of_another_caller_cost(
    rate: float, cost: float
) -> None:
    """A few long texts fill a model, and are as few as the short ones of somebody else."""
    throttle = Throttle(random.Random(0).random)
    callers, costs = {"long": rate, "short": 2.0}, {"long": cost}
    flood_of(throttle, callers, 200, 0.0, 4.0, costs=costs)
    assert flood_of(throttle, callers, 200, 4.0, 20.0, costs=costs)["short"] == 40


@pytest.mark.parametrize("rate", [4.0, 40.0, 2_000.0])
def test_little_is_admitted_although_the_models_refuse_most_of_it(rate: float) -> None:
    throttle = Throttle(random.Random(0).random)
    sent = sorted(
        (number / each, caller)
        for caller, each in {"little": 4.0, "other": rate}.items()
        for number in range(int(20 * each))
    )
    refused = Counter[str]()
    for number, (at, caller) in enumerate(sent):
        is_active = throttle.is_active(at)
        bucket = throttle.admit(at, apart(caller)) if is_active else None
        if is_active and bucket is None:
            refused[caller] += 1
        else:
            throttle.record(at, bucket, answered=number % 4 == 0)
    assert refused["little"] == 0
    assert (refused["other"] > 0) is (rate > FEW_PER_SECOND)


@pytest.mark.parametrize("callers", [1, 10, 100, 1_000, 5_000])
def test_flood_of_many_callers_is_refused_as_that_of_one(callers: int) -> None:
    throttle = Throttle(random.Random(0).random)
    each = dict.fromkeys(map(str, range(callers)), 5_000 / callers)
    # Each is let in with its first requests.
    flood_of(throttle, each, 200, 0.0, 15.0)
    admitted = flood_of(throttle, each, 200, 15.0, 3.0).total()
    assert 3 * 200 < admitted < 3 * 200 * (ADMITTED_PER_ANSWERED + 0.7)


def test_throttle_stays_open_where_the_cache_answers_many() -> None:
    throttle = Throttle(random.Random(0).random)
    refused = 0
    for number in range(4_000):
        now = number / 1_000
        is_active = throttle.is_active(now)
        bucket = throttle.admit(now) if is_active else None
        if is_active and bucket is None:
            refused += 1
        else:
            throttle.record(now, bucket, answered=number % 10 < 7)
    assert refused < 40


async def test_full_models_shed_before_any_request_was_refused() -> None:
    random.seed(0)

    def admitted(shedder: LoadShedder) -> int:
        return sum(shedder.admit({"type": "http"}) for _ in range(1_000))

    assert admitted(LoadShedder(PREDICT_PATHS, full=lambda: False)) == 1_000
    before = counter("shed_requests_total", reason="throttle")
    # All of the first, which are few a second, and fewer and fewer as nothing is answered.
    passed = admitted(LoadShedder(PREDICT_PATHS, full=lambda: True))
    assert 0 < passed < 200
    assert counter("shed_requests_total", reason="throttle") - before == 1_000 - passed


async def test_burst_is_shed_before_the_models_are_full() -> None:
    """What is under way fills them."""
    random.seed(0)
    shedder = LoadShedder(PREDICT_PATHS, has_room=lambda _caller, under_way: under_way < 300)
    admitted = sum(shedder.admit({"type": "http"}) for _ in range(2_000))
    assert 300 <= admitted < 500


async def test_full_models_do_not_matter_where_the_cache_answers() -> None:
    # Until the first one is answered it admits the n-th with a chance of 1 / (n + 1).
    random.seed(0)
    shedder = LoadShedder(PREDICT_PATHS, full=lambda: True)
    replies = await ask(shedder, app, "/predict", 500)
    assert sum(reply.text == "in" for reply in replies) > 450


def test_who_has_room_is_let_in_although_few_were_answered() -> None:
    throttle = Throttle(random.Random(0).random)
    for number in range(4_000):
        throttle.admit(number / 1_000)
    refused = [throttle.admit(4.0, has_room=number % 2 == 0) is None for number in range(100)]
    assert not any(refused[::2])
    assert all(refused[1::2])


class _Left(Exception):
    """The client has left."""


@pytest.mark.parametrize("error", [None, Overloaded("no time"), _Left(), asyncio.CancelledError()])
async def test_requests_under_way_are_those_that_have_not_ended(
    error: BaseException | None,
) -> None:
    seen: list[tuple[str, int]] = []
    full = False

    def has_room(caller: str, under_way: int) -> bool:
        seen.append((caller, under_way))
        return False

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        await released.wait()
        if error is not None:
            raise error
        await app(scope, receive, send)

    released = asyncio.Event()
    shedder = LoadShedder({"/"}, lambda: full, has_room, lambda _scope: "someone")
    inner = ProblemMiddleware(wait) if isinstance(error, Overloaded) else wait
    layer = LoadSheddingMiddleware(inner, shedder)
    replies: list[Message] = []

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        replies.append(message)

    async def begin(count: int) -> list[asyncio.Task[None]]:
        scopes: list[Scope] = [
            {"type": "http", "method": "POST", "path": "/", "headers": []} for _ in range(count)
        ]
        tasks = [asyncio.ensure_future(layer(scope, receive, send)) for scope in scopes]
        await asyncio.sleep(0)
        return tasks

    full = True
    tasks = await begin(1)
    full = False
    tasks += await begin(2)
    assert seen == [("someone", 1), ("someone", 2)]  # it is not asked while the models are full
    released.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    await begin(1)
    assert seen[-1] == ("someone", 0)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("in")(scope, receive, send)


def failing(error: Callable[[], Exception]) -> ProblemMiddleware:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise error()

    return ProblemMiddleware(fail)


async def ask(
    shedder: LoadShedder, inner: ASGIApp, path: str, times: int = 1
) -> list[httpx.Response]:
    transport = httpx.ASGITransport(LoadSheddingMiddleware(inner, shedder))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        return [await http.post(path) for _ in range(times)]


def overloaded() -> LoadShedder:
    """A shedder whose event loop has been late for long, and is."""
    shedder = LoadShedder(PREDICT_PATHS)
    beats(shedder.lag_monitor, 0.0, 1.0, 10.0)
    return shedder


@pytest.mark.parametrize("path", sorted(PREDICT_PATHS))
async def test_shed_request_gets_a_problem_like_any_other_and_is_counted(path: str) -> None:
    before = counter("shed_requests_total", reason="event_loop")
    endpoint = route_of("POST", path).path
    counted = counter("http_requests_total", endpoint=endpoint, status="503")
    [reply] = await ask(overloaded(), app, path)
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    is_json = path.startswith(JSON_ERROR_PREFIX)
    content_type = "application/json" if is_json else "application/problem+json"
    assert reply.headers["content-type"] == content_type
    error = {"error": "The service has too much to do; try again"}
    assert reply.json() == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "The service has too much to do; try again",
        "instance": path,
        "request_id": reply.headers["x-request-id"],
        **(error if path.startswith(ERROR_TEXT_PREFIXES) else {}),
    }
    assert counter("shed_requests_total", reason="event_loop") == before + 1
    assert counter("http_requests_total", endpoint=endpoint, status="503") == counted + 1


@pytest.mark.parametrize(
    ("lag_seconds", "admitted"), [(0.5, ["light"]), (MOST_LAG_SECONDS + 0.5, [])]
)
async def test_late_loop_refuses_who_keeps_it_busy_and_others_only_if_it_is_very_late(
    lag_seconds: float, admitted: list[str]
) -> None:
    shedder = LoadShedder(PREDICT_PATHS, caller=lambda scope: apart(scope["caller"]))
    for caller, body_bytes in (("heavy", 40_000_000), ("light", 200)):
        shedder.record_answer(RequestContext("1", caller=apart(caller), body_bytes=body_bytes))
    now = asyncio.get_running_loop().time()
    beats(shedder.lag_monitor, now - lag_seconds - 2.0, LAG_SECONDS + 0.1, 1.8)
    callers = [
        caller for caller in ("heavy", "light") if shedder.admit({"type": "http", "caller": caller})
    ]
    assert callers == admitted


async def test_requests_for_other_paths_count_as_use_of_the_loop() -> None:
    shedder = LoadShedder(PREDICT_PATHS, caller=lambda _scope: "predicts")
    await ask(shedder, app, "/livez", 100)
    shedder.record_answer(RequestContext("1", caller="predicts"))
    now = asyncio.get_running_loop().time()
    beats(shedder.lag_monitor, now - 2.5, LAG_SECONDS + 0.1, 1.8)
    assert shedder.admit({"type": "http"})


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/metrics", "/feedback"])
async def test_other_paths_are_never_shed(path: str) -> None:
    [reply] = await ask(overloaded(), app, path)
    assert reply.text == "in"


async def test_request_that_the_protocol_admitted_is_not_decided_again() -> None:
    """It is counted once, and answered although the shedder would refuse it now."""

    async def admitted(scope: Scope, receive: Receive, send: Send) -> None:
        context_of(scope).admitted = True
        await LoadSheddingMiddleware(app, overloaded())(scope, receive, send)

    transport = httpx.ASGITransport(admitted)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert (await http.post("/predict")).text == "in"


async def test_admitted_request_says_so_in_its_context_and_a_refused_one_does_not() -> None:
    scope: Scope = {"type": "http"}
    assert LoadShedder(PREDICT_PATHS).admit(scope)
    assert context_of(scope).admitted
    refused: Scope = {"type": "http"}
    assert not overloaded().admit(refused)
    assert not context_of(refused).admitted


async def test_it_sheds_if_models_have_no_time_and_for_no_other_error() -> None:
    async def details(error: Callable[[], Exception]) -> set[str]:
        places = iter(range(100))  # for the first hundred
        shedder = LoadShedder(
            PREDICT_PATHS, has_room=lambda _caller, _under_way: next(places, None) is not None
        )
        replies = await ask(shedder, failing(error), "/predict", 200)
        return {reply.json()["detail"] for reply in replies}

    assert await details(lambda: Overloaded("v1 has no time")) == {
        "v1 has no time",
        "The service has too much to do; try again",
    }
    assert await details(lambda: Overloaded("too large", of_large=True)) == {"too large"}
    assert await details(lambda: RunnerUnavailable("v1 is down")) == {"v1 is down"}
    assert await details(lambda: DeadlineExceeded("not within 1 ms")) == {"not within 1 ms"}


async def test_other_than_http_passes() -> None:
    seen: list[str] = []

    async def lifespan(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    async def receive() -> Message:
        raise AssertionError

    async def send(_message: Message) -> None:
        raise AssertionError

    layer = LoadSheddingMiddleware(lifespan, overloaded())
    await layer({"type": "lifespan"}, receive, send)
    assert seen == ["lifespan"]
