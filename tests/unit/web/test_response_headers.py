"""Headers that tell browsers what to do, and those that a request gathers on its way."""

from __future__ import annotations

import httpx
import pytest
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from core.request_context import context_of
from web.request import RequestMiddleware
from web.response_headers import SECURITY_HEADERS, CorsHeaders, cors_options, headers_for


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


SHOP = "https://shop.example"
CORS = CORSMiddleware(app, **cors_options((SHOP, "https://other.example")))


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
@pytest.mark.parametrize(
    "requested",
    [
        None,
        "authorization,content-type",
        "Content-Encoding",
        "x-request-id, x-request-timeout-ms",
        # What the instrumentation of a page adds by itself.
        "traceparent",
        "baggage,traceparent,tracestate",
        "sentry-trace,baggage",
        "x-datadog-origin,x-datadog-parent-id,x-datadog-sampling-priority,x-datadog-trace-id",
        "b3",
        "x-b3-sampled,x-b3-spanid,x-b3-traceid",
        "newrelic",
        "elastic-apm-traceparent",
        "request-id,request-context",  # Application Insights
        "x-requested-with",
        "cache-control,pragma",
    ],
)
async def test_script_of_a_listed_website_may_send_any_header(
    method: str, requested: str | None
) -> None:
    headers = {"Origin": SHOP, "Access-Control-Request-Method": method}
    if requested is not None:
        headers["Access-Control-Request-Headers"] = requested
    async with client(CORS) as http:
        reply = await http.options("/predict", headers=headers)
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == SHOP
    assert method in reply.headers["access-control-allow-methods"].split(", ")
    allowed = reply.headers.get("access-control-allow-headers", "").lower()
    assert {name.strip().lower() for name in (requested or "").split(",")} <= {
        name.strip() for name in allowed.split(",")
    }


async def test_listed_website_may_reach_a_private_network() -> None:
    """Chrome asks for it before https://shop.example calls a service of its user's machine."""
    headers = {
        "Origin": SHOP,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Private-Network": "true",
    }
    async with client(CORS) as http:
        reply = await http.options("/predict", headers=headers)
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-private-network"] == "true"


@pytest.mark.parametrize(
    ("origin", "method"),
    [
        ("https://evil.example", "POST"),
        ("http://shop.example", "POST"),
        ("https://shop.example:8443", "POST"),
        ("https://shop.example.evil.example", "POST"),
        ("null", "POST"),
        (SHOP, "PATCH"),
        (SHOP, "PUT"),
    ],
)
async def test_other_websites_and_methods_are_refused(origin: str, method: str) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": method}
    async with client(CORS) as http:
        reply = await http.options("/predict", headers=headers)
    assert reply.status_code == 400
    allowed = reply.headers.get("access-control-allow-origin") == origin
    assert allowed == (origin == SHOP)


@pytest.mark.parametrize(
    "origin", [SHOP, "https://other.example", "https://evil.example", "null", "", None]
)
async def test_headers_of_answers_without_middleware_are_those_of_the_middleware(
    origin: str | None,
) -> None:
    headers = {} if origin is None else {"Origin": origin}
    async with client(CORS) as http:
        reply = await http.get("/", headers=headers)
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    found = CorsHeaders((SHOP, "https://other.example")).of(raw)
    if origin in (SHOP, "https://other.example"):
        names = ("access-control-allow-origin", "access-control-expose-headers", "vary")
        assert found == {name: reply.headers[name] for name in names}
        assert "RateLimit" in found["access-control-expose-headers"].split(", ")
    else:
        assert found == {}
        assert "access-control-allow-origin" not in reply.headers
    assert CorsHeaders().of(raw) == {}
