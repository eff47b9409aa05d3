"""What every answer tells browsers, and what a request gathers on its way."""

from __future__ import annotations

import httpx
import pytest
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from web.response_headers import (
    SECURITY_HEADERS,
    ResponseHeadersMiddleware,
    add_header,
    cors_options,
)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    add_header(scope, b"ratelimit", "more")
    add_header(scope, b"ratelimit", "less")
    await PlainTextResponse("ok")(scope, receive, send)


def client(of: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(of), base_url="http://test")


async def test_every_answer_has_them_and_what_was_gathered() -> None:
    async with client(ResponseHeadersMiddleware(app)) as http:
        reply = await http.get("/predict")
    for name, value in SECURITY_HEADERS:
        assert reply.headers[name.decode()] == value.decode()
    assert reply.headers["content-security-policy"].startswith("default-src 'none'")
    assert reply.headers.get_list("ratelimit") == ["less"]
    assert "connection" not in reply.headers


async def test_the_page_of_the_documentation_may_run_its_own_scripts() -> None:
    async with client(ResponseHeadersMiddleware(app)) as http:
        policy = (await http.get("/docs")).headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; script-src 'self' 'unsafe-inline'")


@pytest.mark.parametrize("stopping", [True, False])
async def test_answers_close_their_connections_before_a_stop(stopping: bool) -> None:
    async with client(ResponseHeadersMiddleware(app, lambda: stopping)) as http:
        reply = await http.get("/")
    assert reply.headers.get("connection") == ("close" if stopping else None)


async def test_scripts_of_websites_that_are_named_may_ask_and_no_others() -> None:
    ours = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    others = ours | {"Origin": "https://evil.example"}
    async with client(CORSMiddleware(app, **cors_options(("https://shop.example",)))) as http:
        asked = await http.options("/predict", headers=ours)
        assert asked.headers["access-control-allow-origin"] == "https://shop.example"
        assert (
            "RateLimit"
            in (await http.get("/", headers=ours)).headers["access-control-expose-headers"]
        )
        refused = await http.options("/predict", headers=others)
        assert refused.status_code == 400
        assert "access-control-allow-origin" not in refused.headers
