"""Headers that tell browsers what to do, and those that a request gathers on its way."""

from __future__ import annotations

import httpx
import pytest
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from core.request_context import context_of
from web.request import RequestMiddleware
from web.response_headers import SECURITY_HEADERS, cors_options, headers_for


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    context_of(scope).response_headers[b"ratelimit"] = b"more"
    context_of(scope).response_headers[b"ratelimit"] = b"less"
    await PlainTextResponse("ok")(scope, receive, send)


def client(of: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(of), base_url="http://test")


async def test_every_answer_has_the_security_headers_and_those_of_its_context() -> None:
    async with client(RequestMiddleware(app)) as http:
        reply = await http.get("/predict")
    for name, value in SECURITY_HEADERS:
        assert reply.headers[name.decode()] == value.decode()
    assert reply.headers["content-security-policy"].startswith("default-src 'none'")
    assert reply.headers.get_list("ratelimit") == ["less"]
    assert "connection" not in reply.headers


async def test_documentation_page_may_run_its_own_scripts() -> None:
    async with client(RequestMiddleware(app)) as http:
        policy = (await http.get("/docs")).headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; script-src 'self' 'unsafe-inline'")


def test_dashboard_loads_only_its_own_files_and_may_be_revalidated() -> None:
    for path in ("/dashboard", "/dashboard/main.js"):
        headers = dict(headers_for(path))
        assert len(headers) == len(headers_for(path))
        assert headers.keys() == {*dict(SECURITY_HEADERS), b"content-security-policy"}
        assert headers[b"cache-control"] == b"no-cache"
        assert b"script-src 'self';" in headers[b"content-security-policy"]
        assert b"unsafe-inline" not in headers[b"content-security-policy"]
    assert dict(headers_for("/dashboards"))[b"cache-control"] == b"no-store"


@pytest.mark.parametrize("stopping", [True, False])
async def test_answer_closes_its_connection_while_the_server_stops(stopping: bool) -> None:
    async with client(RequestMiddleware(app, lambda: stopping)) as http:
        reply = await http.get("/")
    assert reply.headers.get("connection") == ("close" if stopping else None)


async def test_scripts_of_listed_websites_may_call_and_no_others() -> None:
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
