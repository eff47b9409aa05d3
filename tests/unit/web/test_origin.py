"""A page of another site changes nothing here, and one that took our address reads nothing."""

from __future__ import annotations

from collections.abc import Collection

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from web.origin import OriginMiddleware
from web.problems import ProblemMiddleware

HERE = "http://127.0.0.1:3000"
ALLOWED = "https://shop.example"


def http(hosts: Collection[str] | None = frozenset()) -> httpx.AsyncClient:
    layer = OriginMiddleware(PlainTextResponse("ok"), hosts, (ALLOWED,))
    transport = httpx.ASGITransport(ProblemMiddleware(layer))
    return httpx.AsyncClient(transport=transport, base_url=HERE)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        # A program.
        ({}, 200),
        # Our own page, in today's browsers and in old ones.
        ({"Sec-Fetch-Site": "same-origin", "Origin": HERE}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": HERE}, 200),
        # The same behind a proxy that terminates TLS.
        ({"Host": "localhost", "Origin": "https://localhost"}, 200),
        # Another site's.
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:8000"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "anything else"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:8000"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        # One that the operator allows.
        ({"Sec-Fetch-Site": "cross-site", "Origin": ALLOWED}, 200),
        ({"Origin": ALLOWED}, 200),
        ({"Origin": f"{ALLOWED}.evil.example"}, 403),
    ],
)
async def test_change_that_another_site_requests_is_refused(
    headers: dict[str, str], status: int
) -> None:
    async with http() as client:
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            reply = await client.request(method, "/admin/rollout", headers=headers)
            assert reply.status_code == status
            if status == 403:
                assert "CORS_ORIGINS" in reply.json()["detail"]
        # It cannot read what these answer: the browser sees to that.
        for method in ("GET", "HEAD", "OPTIONS"):
            assert (await client.request(method, "/", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("site", "mode", "origin", "status"),
    [
        # A link, and a bookmark.
        ("cross-site", "navigate", None, 200),
        ("none", "navigate", None, 200),
        # Our own page.
        ("same-origin", "cors", None, 200),
        ("same-origin", "no-cors", None, 200),
        # A picture, script or fetch of another site's page: it would use up the reader's limits.
        ("cross-site", "no-cors", None, 403),
        ("same-site", "no-cors", None, 403),
        ("cross-site", "cors", "https://evil.example", 403),
        ("same-site", "cors", "http://127.0.0.1:8000", 403),
        # One that the operator allows.
        ("cross-site", "cors", ALLOWED, 200),
    ],
)
async def test_page_of_another_site_loads_nothing_but_may_link_here(
    site: str, mode: str, origin: str | None, status: int
) -> None:
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
    if origin is not None:
        headers["Origin"] = origin
    async with http() as client:
        for method in ("GET", "HEAD"):
            reply = await client.request(method, "/analytics/summary", headers=headers)
            assert reply.status_code == status
        # A preflight is answered by the rules of CORS.
        assert (await client.options("/analytics/summary", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("hosts", "host", "status"),
    [
        (frozenset(), "127.0.0.1:3000", 200),
        (frozenset(), "localhost:3000", 200),
        (frozenset(), "LOCALHOST", 200),
        (frozenset(), "localhost.", 200),
        (frozenset(), "[::1]:3000", 200),
        (frozenset(), "127.8.8.8", 200),
        (frozenset(), "evil.example", 421),
        (frozenset(), "evil.example:3000", 421),
        (frozenset(), "[::1]evil.example", 421),
        (frozenset(), "[::1", 421),
        (frozenset(), "localhost:99999999", 421),
        (frozenset(), "localhost:evil.example", 421),
        (frozenset(), "localhost.evil.example", 421),
        (frozenset(), "127.0.0.1.evil.example", 421),
        (frozenset(), "10.0.0.7", 421),
        (frozenset(), "[2001:db8::1]", 421),
        ({"shop.example"}, "shop.example", 200),
        ({"shop.example"}, "Shop.Example:443", 200),
        ({"shop.example"}, "evil.shop.example", 421),
        ({"shop.example"}, "localhost", 200),
        (None, "evil.example", 200),
    ],
)
async def test_host_that_is_not_ours_is_misdirected(
    hosts: Collection[str] | None, host: str, status: int
) -> None:
    async with http(hosts) as client:
        for method in ("GET", "POST"):
            reply = await client.request(method, "/health", headers={"Host": host})
            assert reply.status_code == status
            if status == 421:
                assert reply.headers["content-type"] == "application/problem+json"
                assert "ALLOWED_HOSTS" in reply.json()["detail"]


@pytest.mark.parametrize(
    ("server", "host"),
    [
        ("10.0.0.7", "10.0.0.7:3000"),
        # As a socket of `::` sees it.
        ("::ffff:10.0.0.7", "10.0.0.7:3000"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("2001:db8::7", "[2001:db8::7]:3000"),
        ("2001:db8::7", "[2001:DB8:0::7]"),
        ("fe80::7%eth0", "[fe80::7]:3000"),
    ],
)
async def test_address_that_the_client_connected_to_is_ours(server: str, host: str) -> None:
    """Probes and Prometheus come by it, whatever ALLOWED_HOSTS has."""
    checked = ProblemMiddleware(OriginMiddleware(PlainTextResponse("ok"), {"shop.example"}, ()))

    async def layer(scope: Scope, receive: Receive, send: Send) -> None:
        await checked({**scope, "server": (server, 3000)}, receive, send)

    transport = httpx.ASGITransport(layer)
    async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
        assert (await client.get("/metrics", headers={"Host": host})).status_code == 200
        for other in ("10.0.0.8", "[2001:db8::8]:3000", "[::ffff:10.0.0.8]"):
            assert (await client.get("/metrics", headers={"Host": other})).status_code == 421


@pytest.mark.parametrize(
    ("version", "hosts", "status"),
    [
        ("1.1", ["localhost"], 200),
        ("1.1", ["localhost", "evil.example"], 400),
        ("1.1", ["localhost", "localhost"], 400),
        ("1.1", [], 400),
        ("1.1", [""], 400),
        ("1.1", ["  "], 400),
        ("2.0", [], 400),
        # A program of old: the header came with HTTP/1.1.
        ("1.0", [], 200),
        ("1.0", [""], 200),
        ("0.9", [], 200),
        ("1.0", ["evil.example"], 421),
        ("1.0", ["localhost", "evil.example"], 400),
    ],
)
async def test_request_has_one_host(version: str, hosts: list[str], status: int) -> None:
    layer = ProblemMiddleware(OriginMiddleware(PlainTextResponse("ok"), frozenset(), ()))

    async def of_version(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"host", host.encode()) for host in hosts]
        await layer({**scope, "http_version": version, "headers": headers}, receive, send)

    transport = httpx.ASGITransport(of_version)
    async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
        assert (await client.get("/health")).status_code == status


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("destination", "status"),
    [
        ("document", 200),
        (None, 200),  # browsers before 2020 send no destination
        ("iframe", 403),
        ("frame", 403),
        ("embed", 403),
        ("object", 403),
        ("fencedframe", 403),
        ("image", 403),
        ("empty", 403),
        ("", 403),
    ],
)
async def test_page_of_another_site_puts_nothing_into_a_frame(
    site: str, destination: str | None, status: int
) -> None:
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}
    if destination is not None:
        headers["Sec-Fetch-Dest"] = destination
    async with http() as client:
        assert (await client.get("/analytics/summary", headers=headers)).status_code == status
