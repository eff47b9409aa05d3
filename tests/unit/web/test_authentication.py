"""Who may ask for what."""

from __future__ import annotations

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from core.api_keys import ApiKey, hash_key
from web.authentication import AuthenticationMiddleware
from web.problems import ProblemMiddleware
from web.rate_limit import client_identity
from web.routes import ANALYTICS_ROUTES, OPEN_ROUTES, POST_ROUTES, PREDICT_ROUTES

KEYS = (
    ApiKey("shop", frozenset({"predict"}), hash_key("shop-key")),
    ApiKey("shop", frozenset({"predict"}), hash_key("the next shop-key")),
    ApiKey("ops", frozenset({"analytics"}), hash_key("ops-key")),
    ApiKey("root", frozenset({"admin"}), hash_key("root-key")),
)
CLOSED = ("/predict", "/analytics/summary", "/metrics", "/cache/stats", "/anything/else")


async def tell_client(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(client_identity(scope))(scope, receive, send)


def http(keys: tuple[ApiKey, ...] = KEYS) -> httpx.AsyncClient:
    app = ProblemMiddleware(AuthenticationMiddleware(tell_client, keys))
    transport = httpx.ASGITransport(app, client=("10.0.0.7", 1))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_without_keys_all_are_let_in() -> None:
    async with http(()) as client:
        for path in CLOSED:
            assert (await client.get(path, headers=bearer("whatever"))).text == "10.0.0.7"


@pytest.mark.parametrize(
    ("sent_to", "anonymous", "status"),
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
async def test_without_keys_other_machines_are_let_in_only_if_that_was_said(
    sent_to: str, anonymous: bool, status: int
) -> None:
    app = ProblemMiddleware(
        AuthenticationMiddleware(tell_client, (), anonymous_from_elsewhere=anonymous)
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=sent_to) as client:
        for path in CLOSED:
            assert (await client.get(path)).status_code == status
        for path in OPEN_ROUTES:
            assert (await client.get(path)).status_code == 200


async def test_whether_it_is_up_anybody_may_ask() -> None:
    async with http() as client:
        for path in OPEN_ROUTES:
            assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, bearer(""), bearer("unknown"), {"Authorization": "Basic c2hvcDprZXk="}]
)
async def test_nobody_else_is_let_in(headers: dict[str, str]) -> None:
    async with http() as client:
        for path in CLOSED:
            refused = await client.get(path, headers=headers)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert refused.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("shop-key", {*PREDICT_ROUTES, "/feedback", "/rate-limit/status"}),
        ("the next shop-key", {*PREDICT_ROUTES, "/feedback", "/rate-limit/status"}),
        ("ops-key", {*ANALYTICS_ROUTES, "/metrics", "/cache/stats"}),
        ("root-key", {*POST_ROUTES, *ANALYTICS_ROUTES, *CLOSED, "/rate-limit/status"}),
    ],
)
async def test_a_key_is_for_its_scopes(key: str, allowed: set[str]) -> None:
    async with http() as client:
        for path in {*POST_ROUTES, *ANALYTICS_ROUTES, *CLOSED, "/rate-limit/status"}:
            reply = await client.post(path, headers=bearer(key))
            assert reply.status_code == (200 if path in allowed else 403), path


async def test_limits_count_by_the_name_of_a_key() -> None:
    async with http() as client:
        told = [
            (await client.get("/predict", headers=bearer(key))).text
            for key in ("shop-key", "the next shop-key", "root-key")
        ]
    assert told == ["key shop", "key shop", "key root"]
