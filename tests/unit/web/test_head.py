"""HEAD is answered wherever GET is."""

from __future__ import annotations

import pytest
from starlette.types import Message, Receive, Scope, Send

from web.head import HeadMiddleware


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
    await HeadMiddleware(app)(scope, nothing, drop)
    assert methods == [seen]
    # By this the server knows that the body is to be left out.
    assert scope["method"] == method


async def test_other_scopes_pass() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    await HeadMiddleware(app)({"type": "lifespan"}, nothing, drop)
    assert seen == [{"type": "lifespan"}]
