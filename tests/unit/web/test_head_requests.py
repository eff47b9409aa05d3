"""HEAD is answered wherever GET is."""

from __future__ import annotations

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.body import JsonBodyReader
from web.idempotency import IdempotentAnswers
from web.json_api import JsonApiMiddleware


def layer(app: ASGIApp) -> JsonApiMiddleware:
    """One without POSTs."""
    return JsonApiMiddleware(app, dict, JsonBodyReader(1_000, 1.0), 1.0, no_repeats)


def no_repeats() -> IdempotentAnswers:
    raise AssertionError("nothing is repeated")


async def nothing() -> Message:
    raise AssertionError("nobody reads")


async def drop(_message: Message) -> None: ...


@pytest.mark.parametrize(
    ("method", "seen"), [("HEAD", "GET"), ("GET", "GET"), ("POST", "POST"), ("OPTIONS", "OPTIONS")]
)
async def test_app_sees_head_as_get_and_the_server_does_not(method: str, seen: str) -> None:
    methods: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        methods.append(scope["method"])

    scope: Scope = {"type": "http", "method": method, "path": "/health", "headers": []}
    await layer(app)(scope, nothing, drop)
    assert methods == [seen]
    # By this the server knows that the body is to be left out.
    assert scope["method"] == method


async def test_other_scopes_pass() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    await layer(app)({"type": "lifespan"}, nothing, drop)
    assert seen == [{"type": "lifespan"}]
