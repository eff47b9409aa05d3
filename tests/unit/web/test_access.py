"""Callers without the right key, or past their limit, are refused before anything is computed."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Mapping

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.api_keys import ApiKey, hash_key
from core.errors import RateLimited, Unauthorized
from core.key_ring import KeyRing
from core.rate_limits import LimitName
from core.request_context import RequestContext, context_of
from web.access import AccessMiddleware
from web.problems import ProblemMiddleware
from web.rate_limiter import NO_LIMITS, LimitState, RateLimiter
from web.request import RequestMiddleware
from web.routes import POST_PATHS, PREDICT_PATHS, ROUTES

KEYS = (
    ApiKey("shop", frozenset({"predict"}), hash_key("shop-key")),
    ApiKey("shop", frozenset({"predict"}), hash_key("the next shop-key")),
    ApiKey("labeller", frozenset({"feedback"}), hash_key("labeller-key")),
    ApiKey("ops", frozenset({"analytics"}), hash_key("ops-key")),
    ApiKey("root", frozenset({"admin"}), hash_key("root-key"), {"batch": "off"}),
)
CLOSED = ("/predict", "/analytics/summary", "/metrics", "/cache/stats", "/anything/else")
OPEN_PATHS = sorted(route.path for route in ROUTES if route.scope is None)
ANALYTICS_PATHS = frozenset(route.path for route in ROUTES if route.limit == "analytics")
ALL = {*POST_PATHS, *ANALYTICS_PATHS, *CLOSED, "/rate-limit/status"}


class FakeLimiter(RateLimiter):
    """Counts by limit and client, up to `limit` each; None: the limits are off."""

    def __init__(self, limit: int | None = None) -> None:
        self.counted: list[tuple[LimitName, str, int]] = []
        self.own: list[Mapping[LimitName, str]] = []
        self._limit = limit

    async def check(
        self, name: LimitName, client: str, cost: int = 1, own: Mapping[LimitName, str] = NO_LIMITS
    ) -> LimitState | None:
        self.own.append(own)
        if self._limit is not None and self._used(name, client) + cost > self._limit:
            raise RateLimited("told to refuse", retry_after_seconds=7)
        self.counted.append((name, client, cost))
        return await self.state(name, client)

    async def take(
        self, name: LimitName, client: str, cost: int, own: Mapping[LimitName, str] = NO_LIMITS
    ) -> LimitState | None:
        state = await self.state(name, client, own)
        left = cost if state is None else min(cost, state.remaining)
        return await self.check(name, client, left, own)

    async def state(
        self, name: LimitName, client: str, own: Mapping[LimitName, str] = NO_LIMITS
    ) -> LimitState | None:
        if self._limit is None or own.get(name) == "off":
            return None
        return LimitState(10, 60, self._limit - self._used(name, client), time.time() + 6.9)

    def _used(self, name: LimitName, client: str) -> int:
        return sum(cost for *of, cost in self.counted if of == [name, client])


async def tell_caller(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(context_of(scope).caller)(scope, receive, send)


async def receive_nothing() -> Message:
    raise AssertionError


async def send_nothing(_message: Message) -> None:
    raise AssertionError


def behind(
    app: ASGIApp,
    keys: tuple[ApiKey, ...] = (),
    limiter: FakeLimiter | None = None,
    *,
    allow_anonymous: bool = False,
) -> ASGIApp:
    """`app` with the layers around it that the service has, from the headers inwards."""
    limits = limiter or FakeLimiter()
    access = AccessMiddleware(app, KeyRing(keys), lambda: limits, allow_anonymous=allow_anonymous)
    return RequestMiddleware(ProblemMiddleware(access))


def http(
    keys: tuple[ApiKey, ...] = KEYS, limiter: FakeLimiter | None = None, app: ASGIApp = tell_caller
) -> httpx.AsyncClient:
    layers = behind(app, keys, limiter, allow_anonymous=not keys)
    transport = httpx.ASGITransport(layers, client=("10.0.0.7", 1))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_without_keys_every_local_request_is_admitted() -> None:
    async with http(()) as client:
        for path in CLOSED:
            assert (await client.get(path, headers=bearer("whatever"))).text == "10.0.0.7"


@pytest.mark.parametrize("path", sorted(PREDICT_PATHS))
async def test_playground_has_limits_of_its_own(path: str) -> None:
    limiter = FakeLimiter(1)
    marked = {"X-Sentiment-Source": "playground"}
    async with http((), limiter) as client:
        assert (await client.post(path, headers=marked)).status_code == 200
        assert (await client.post(path, headers=marked)).status_code == 429
        assert (await client.post(path)).status_code == 200
        assert (await client.post(path)).status_code == 429
    assert [client for _, client, _ in limiter.counted] == ["10.0.0.7, playground", "10.0.0.7"]


@pytest.mark.parametrize(
    "value",
    ["", "Playground", "playground ,", "1", "true", "shop", "playground, x", "p\xe4"],
)
async def test_unknown_source_is_refused_before_it_counts(value: str) -> None:
    limiter = FakeLimiter(1)
    async with http((), limiter) as client:
        headers = [(b"x-sentiment-source", value.encode("latin-1"))]
        reply = await client.post("/predict", headers=headers)
        assert (reply.status_code, limiter.counted) == (400, [])
        assert reply.json()["detail"] == "X-Sentiment-Source is playground, or absent"
        # Nothing else is tried out.
        assert (await client.get("/analytics/summary", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("sent_to", "allow_anonymous", "status"),
    [
        ("http://127.0.0.1:3000", False, 200),
        ("http://127.0.3.4:3000", False, 200),
        ("http://[::1]:3000", False, 200),
        ("http://[::ffff:127.0.0.1]:3000", False, 200),
        ("http://[::1234]:3000", False, 403),
        ("http://192.168.1.5:3000", False, 403),
        ("http://192.168.1.5:3000", True, 200),
    ],
)
async def test_without_keys_other_machines_are_admitted_only_if_a_setting_says_so(
    sent_to: str, allow_anonymous: bool, status: int
) -> None:
    app = behind(tell_caller, allow_anonymous=allow_anonymous)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=sent_to) as client:
        for path in CLOSED:
            reply = await client.get(path)
            assert reply.status_code == status
            if status == 403:
                assert "API_KEYS" in reply.json()["detail"]
                assert "ALLOW_ANONYMOUS=1" in reply.json()["detail"]
        for path in OPEN_PATHS:
            assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize(
    ("client", "status"),
    [
        ("127.0.0.1", 200),
        ("::1", 200),
        ("8.8.8.8", 403),
        ("2001:db8::7", 403),
        ("10.0.0.7", 403),
        ("hidden", 403),
    ],
)
async def test_without_keys_a_client_that_a_proxy_names_is_another_machine(
    client: str, status: int
) -> None:
    """A proxy on this machine comes over loopback; `client` is what it says of whom it serves."""
    transport = httpx.ASGITransport(behind(tell_caller), client=(client, 0))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:3000") as http:
        for path in CLOSED:
            assert (await http.get(path)).status_code == status
        for path in OPEN_PATHS:
            assert (await http.get(path)).status_code == 200


async def test_open_paths_need_no_key() -> None:
    async with http() as client:
        for path in OPEN_PATHS:
            reply = await client.get(path)
            assert (reply.status_code, reply.text) == (200, "10.0.0.7")


@pytest.mark.parametrize(
    "headers", [{}, bearer(""), bearer("unknown"), {"Authorization": "Basic c2hvcDprZXk="}]
)
async def test_caller_without_a_known_key_is_refused_with_401(headers: dict[str, str]) -> None:
    async with http() as client:
        for path in CLOSED:
            refused = await client.get(path, headers=headers)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert refused.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("shop-key", {*PREDICT_PATHS, "/jobs", "/rate-limit/status"}),
        ("the next shop-key", {*PREDICT_PATHS, "/jobs", "/rate-limit/status"}),
        ("labeller-key", {"/feedback"}),
        ("ops-key", {*ANALYTICS_PATHS, "/metrics", "/cache/stats"}),
        ("root-key", ALL),
    ],
)
async def test_key_opens_the_paths_of_its_scopes_and_no_others(key: str, allowed: set[str]) -> None:
    async with http() as client:
        for path in ALL:
            reply = await client.post(path, headers=bearer(key))
            assert reply.status_code == (200 if path in allowed else 403), path


async def test_caller_is_the_name_of_its_key() -> None:
    async with http() as client:
        callers = [
            (await client.get("/predict", headers=bearer(key))).text
            for key in ("shop-key", "the next shop-key", "root-key")
        ]
    assert callers == ["key shop", "key shop", "key root"]


@pytest.mark.parametrize(
    ("peer", "caller"),
    [
        ({"client": ("10.0.0.1", 50_000)}, "10.0.0.1"),
        ({"client": None}, "unknown"),
        ({}, "unknown"),
    ],
)
async def test_caller_without_a_key_is_its_address(peer: Scope, caller: str) -> None:
    scope: Scope = {"type": "http", "method": "GET", "path": "/predict", "headers": [], **peer}

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        return None

    limiter = FakeLimiter()
    access = AccessMiddleware(app, KeyRing(), lambda: limiter, allow_anonymous=True)
    await access(scope, receive_nothing, send_nothing)
    assert context_of(scope).caller == context_of(scope).address == caller


async def test_request_is_counted_once_against_the_limit_of_its_route() -> None:
    limiter = FakeLimiter()
    async with http(limiter=limiter) as client:
        await client.post("/predict", headers=bearer("shop-key"))
        await client.post("/predict/batch", headers=bearer("root-key"))
        await client.get("/analytics/recent", headers=bearer("ops-key"))
        await client.get("/admin/rollout", headers=bearer("root-key"))
        await client.get("/health")
        await client.get("/predict", headers=bearer("shop-key"))
    assert limiter.counted == [
        ("predict", "key shop", 1),
        ("batch", "key root", 1),
        ("analytics", "key ops", 1),
        ("admin", "key root", 1),
    ]
    assert limiter.own == [{}, {"batch": "off"}, {}, {"batch": "off"}]


async def test_key_that_may_not_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "bentoml.sentiment.request")
    async with http() as client:
        refused = await client.post("/admin/rollout", headers=bearer("ops-key"))
    assert refused.status_code == 403
    [line] = caplog.records
    assert (vars(line)["caller"], vars(line)["status"]) == ("key ops", 403)


async def test_refused_caller_is_not_counted() -> None:
    limiter = FakeLimiter()
    async with http(limiter=limiter) as client:
        assert (await client.post("/predict")).status_code == 401
        assert (await client.post("/predict", headers=bearer("ops-key"))).status_code == 403
    assert limiter.counted == []


async def test_answer_says_what_is_left_of_the_limit_and_problem_does_too() -> None:
    reached: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["path"])
        await PlainTextResponse("ok")(scope, receive, send)

    async with http((), FakeLimiter(2), app) as client:
        replies = [await client.post("/predict") for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert [reply.headers["ratelimit"] for reply in replies] == [
        '"predict";r=1;t=7', '"predict";r=0;t=7', '"predict";r=0;t=7',
    ]  # fmt: skip
    assert {reply.headers["ratelimit-policy"] for reply in replies} == {'"predict";q=10;w=60'}
    assert replies[2].headers["retry-after"] == "7"
    assert len(reached) == 2


async def test_charge_counts_more_against_the_same_limit() -> None:
    limiter = FakeLimiter(10)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        charge = context_of(scope).charge
        assert charge is not None
        await charge(7)
        await PlainTextResponse("ok")(scope, receive, send)

    async with http((), limiter, app) as client:
        fits, too_many = [await client.post("/predict/batch") for _ in range(2)]
    assert limiter.counted == [("batch", "10.0.0.7", cost) for cost in (1, 7, 1)]
    # What is left is what was left after the last charge, that was made or refused.
    assert fits.headers.get_list("ratelimit") == ['"batch";r=2;t=7']
    assert too_many.status_code == 429
    assert too_many.headers.get_list("ratelimit") == ['"batch";r=1;t=7']


async def test_request_that_the_limit_never_allows_is_not_told_to_come_back() -> None:
    """It was told to wait, again and again."""
    refused: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        charge = context_of(scope).charge
        assert charge is not None
        for cost in (2, int(scope["query_string"])):
            await charge(cost)

    async with http((), FakeLimiter(10), app) as client:
        for cost in (8, 7):
            reply = await client.post(f"/predict/batch?{cost}")
            refused.append(reply.status_code)
            assert ("counts as 11 texts" in reply.json()["detail"]) == (cost == 8)
            assert ("retry-after" in reply.headers) == (cost == 7)
    assert refused == [422, 429]


async def test_charge_that_refuses_nothing_counts_what_is_left() -> None:
    limiter = FakeLimiter(10)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        charge = context_of(scope).charge
        assert charge is not None
        await charge(7, refuses=False)
        await PlainTextResponse("ok")(scope, receive, send)

    async with http((), limiter, app) as client:
        replies = [await client.post("/predict/batch") for _ in range(3)]
    assert limiter.counted == [("batch", "10.0.0.7", cost) for cost in (1, 7, 1, 1)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert replies[1].headers.get_list("ratelimit") == ['"batch";r=0;t=7']


async def test_context_of_a_counted_request_is_freed_without_a_garbage_collection() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        context_of(scope).path = "this one"
        await PlainTextResponse("ok")(scope, receive, send)

    gc.collect()
    gc.disable()
    try:
        async with http((), FakeLimiter(1), app) as client:
            await asyncio.create_task(client.post("/predict"))
        await asyncio.sleep(0)  # the loop still holds the task that ended last
        contexts = [kept for kept in gc.get_objects() if type(kept) is RequestContext]
        assert not [kept for kept in contexts if kept.path == "this one"]
    finally:
        gc.enable()


@pytest.mark.parametrize("path", ["/health", "/metrics", "/log/stats"])
async def test_request_without_a_limit_has_no_charge_and_no_headers(path: str) -> None:
    charges: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        charges.append(context_of(scope).charge)
        await PlainTextResponse("ok")(scope, receive, send)

    async with http((), FakeLimiter(1), app) as client:
        reply = await client.get(path)
    assert charges == [None]
    assert not any(name.startswith("ratelimit") for name in reply.headers)


async def test_limiter_that_is_off_adds_no_headers() -> None:
    async with http(()) as client:
        reply = await client.post("/predict")
    assert reply.status_code == 200
    assert not any(name.startswith("ratelimit") for name in reply.headers)


async def test_other_than_http_passes_unasked() -> None:
    seen: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    def no_limiter() -> FakeLimiter:
        raise AssertionError

    layer = AccessMiddleware(app, KeyRing(KEYS), no_limiter)
    await layer({"type": "lifespan"}, receive_nothing, send_nothing)
    assert seen == ["lifespan"]


async def test_refused_caller_is_known_by_its_address() -> None:
    scope = {
        "type": "http", "method": "POST", "path": "/admin/rollout", "headers": [],
        "client": ("10.0.0.7", 1),
    }  # fmt: skip

    async def unreachable(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise AssertionError

    async def receive() -> Message:
        raise AssertionError

    async def send(_message: Message) -> None:
        raise AssertionError

    access = AccessMiddleware(unreachable, KeyRing(KEYS), FakeLimiter)
    with pytest.raises(Unauthorized):
        await access(scope, receive, send)
    assert context_of(scope).caller == "10.0.0.7"
