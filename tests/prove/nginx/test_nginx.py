"""A served Bento behind the nginx of docs/operations.md.

The clients' addresses are on a network of the tests, as all of loopback counts as one client. It
needs root.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from loadtest.ports import free_port
from tests.prove.nginx.server import ONE_HOST, nginx
from tests.prove.topology.network import SUBNET, network
from tests.serving import Serve

NAME = "sentiment.example"
CLIENTS = [f"{SUBNET}.{number}" for number in range(1, 6)]


@pytest.fixture(scope="module")
def behind_nginx(
    serve_own: Serve, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """The URL of nginx, and the service's log."""
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    with serve_own(
        "nginx",
        FORWARDED_ALLOW_IPS="127.0.0.1",
        ALLOWED_HOSTS=NAME,
        RATE_LIMIT_PREDICT="3/minute",
    ) as bento:
        server = ONE_HOST.replace("127.0.0.1:3000", urlsplit(bento.url).netloc)
        with network({}, CLIENTS):
            server = server.replace("listen 80;", f"listen {CLIENTS[0]}:{port};")
            with nginx(folder, server, (CLIENTS[0], port)):
                yield f"http://{CLIENTS[0]}:{port}", bento.log


def client(url: str, address: str, **headers: str) -> httpx.Client:
    """A client of another address of this machine."""
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(transport=transport, base_url=url, headers={"Host": NAME, **headers})


def test_each_client_of_nginx_has_limits_of_its_own(behind_nginx: tuple[str, Path]) -> None:
    url, log = behind_nginx
    for address in CLIENTS[:2]:
        with client(url, address) as http:
            replies = [http.post("/predict", json={"text": "fine"}) for _ in range(4)]
        assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
    assert "FORWARDED_ALLOW_IPS" not in log.read_text()


def test_client_of_nginx_cannot_choose_its_address(behind_nginx: tuple[str, Path]) -> None:
    url, _ = behind_nginx
    statuses = []
    for number in range(4):
        forged = {"X-Forwarded-For": f"203.0.113.{number}"}
        with client(url, CLIENTS[2], **forged) as http:
            statuses.append(http.post("/predict", json={"text": "fine"}).status_code)
    assert statuses == [200, 200, 200, 429]


def test_name_and_origin_reach_the_service(behind_nginx: tuple[str, Path]) -> None:
    url, _ = behind_nginx
    with client(url, CLIENTS[3]) as http:
        assert http.get("/health").status_code == 200
        assert http.get("/health", headers={"Host": "evil.example"}).status_code == 421
        own, other = ({"Origin": f"https://{name}"} for name in (NAME, "evil.example"))
        assert http.post("/feedback", json={}, headers=own).status_code == 422
        assert http.post("/feedback", json={}, headers=other).status_code == 403


def test_body_larger_than_nginx_buffers_and_endless_one(behind_nginx: tuple[str, Path]) -> None:
    url, _ = behind_nginx
    with client(url, CLIENTS[4]) as http:
        texts = ["fine " * 900] * 100
        assert http.post("/predict/batch", json={"texts": texts}, timeout=60).status_code == 200
        large = b" " * 5_000_000
        headers = {"Content-Type": "application/json"}
        assert http.post("/predict", content=large, headers=headers).status_code == 413
