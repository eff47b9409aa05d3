"""Which doors a served product has, and which of its callers they keep out."""

from __future__ import annotations

import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from sqlalchemy import URL

from analytics.log.destination import noted
from core.types import VERSIONS
from tests.processes import child_that_runs
from tests.serving import ServedBento, failed_start
from tests.waiting import wait_until

ACCEPTS = 0x1_0000  # SO_ACCEPTCON in /proc/net/unix
POST = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = b'{"text": "A fine day."}'


def listening_unix_sockets(process: psutil.Process) -> set[str]:
    """The paths of the Unix sockets on which a process listens; Linux lists them by inode."""
    held = set()
    for path in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            link = str(path.readlink())
            if link.startswith("socket:["):
                held.add(link[8:-1])
    lines = Path(f"/proc/{process.pid}/net/unix").read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split(maxsplit=7) for line in lines]
    return {
        (row[7] if len(row) > 7 else "")
        for row in rows
        if row[6] in held and int(row[3], 16) & ACCEPTS
    }


def test_service_listens_on_its_port_and_on_sockets_of_its_user_alone(served: ServedBento) -> None:
    """The port: API_KEYS, and without them this machine's users. The sockets: their folders."""
    manager = psutil.Process(served.process.pid)
    family = [manager, *manager.children(recursive=True)]
    tcp = {
        (connection.laddr.ip, connection.laddr.port)
        for process in family
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN or connection.type == socket.SOCK_DGRAM
    }
    # A process that outlives the others would keep the port.
    shipper = child_that_runs(manager, "analytics.log")
    assert shipper.net_connections("inet") == []
    url = urlsplit(served.url)
    assert tcp == {(url.hostname, url.port)}
    paths = {path for process in family for path in listening_unix_sockets(process)}
    # One of each runner, two of the process manager.
    folders = sorted({Path(path).parent for path in paths})
    assert [folder.name.rsplit("-", 1)[0] for folder in folders] == ["bentoml-uds", "circus"]
    assert sorted(Path(path).name for path in paths if "circus-" in path) == ["control", "events"]
    assert len(paths) == 4
    forks = child_that_runs(manager, "fork_server.py")
    assert listening_unix_sockets(forks) == set()
    # A worker that outlives another would keep its requests.
    for version in VERSIONS:
        runner = child_that_runs(manager, f"sentiment_runner_{version}")
        assert len(listening_unix_sockets(runner)) == 1
        assert runner.net_connections("inet") == []
    for folder in folders:
        found = folder.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o700, manager.uids().real)


@pytest.mark.parametrize("path", ["/admin/rollout", "/admin/models/reload", "/feedback"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        # What a page of another site can send without asking: a Blob without a type, a form.
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:8000"}, 403),
        ({"Origin": "https://evil.example", "Content-Type": "application/json"}, 403),
        ({"Host": "evil.example", "Content-Type": "application/json"}, 421),
        ({}, 415),
    ],
)
def test_page_of_another_site_changes_nothing(
    served: ServedBento, path: str, headers: dict[str, str], status: int
) -> None:
    with served.client() as client:
        policy = client.get("/admin/rollout").json()
        reply = client.post(path, content=b"{}", headers=headers)
        assert reply.status_code == status
        assert reply.headers["content-type"] == "application/problem+json"
        assert client.get("/admin/rollout").json() == policy


@pytest.mark.parametrize("path", ["/health", "/metrics", "/analytics/recent", "/livez", "/docs"])
def test_name_that_another_site_pointed_at_this_machine_reads_nothing(
    served: ServedBento, path: str
) -> None:
    with served.client() as client:
        assert client.get(path, headers={"Host": "evil.example:3000"}).status_code == 421
        assert client.get(path, headers={"Host": "localhost:3000"}).status_code == 200


def talk(served: ServedBento, *parts: bytes, half_close: bool = False) -> bytes:
    """All that comes back until the server ends the connection."""
    url = urlsplit(served.url)
    answer = b""
    with socket.create_connection((url.hostname, url.port), timeout=20) as client:
        for part in parts:
            client.sendall(part)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        while part := client.recv(65_536):
            answer += part
    return answer


def test_half_closed_connection_and_wish_for_h2c_get_their_predictions(
    served: ServedBento,
) -> None:
    length = b"Content-Length: %d\r\n\r\n" % len(BODY)
    wish = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAE\r\n"
    for head in (POST, POST + wish):
        answer = talk(served, head + length, BODY, half_close=True)
        assert b"HTTP/1.1 200 OK" in answer
        assert b'"sentiment":"positive"' in answer


@pytest.mark.parametrize(
    ("head", "endless"),
    [
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: 1\r\n" * 10_000),
        (b"POST /no/such/path HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n",
         b"x" * 1_000_000),
    ],
)  # fmt: skip
def test_endless_request_ends_its_connection(
    served: ServedBento, head: bytes, endless: bytes
) -> None:
    before = httpx.get(f"{served.url}/livez").status_code
    with pytest.raises(ConnectionError):
        talk(served, head, *[endless] * 200)
    assert (before, httpx.get(f"{served.url}/livez").status_code) == (200, 200)


def test_start_on_the_folder_of_a_service_with_another_database_is_refused(
    served: ServedBento, named_database: Callable[[str], URL], tmp_path: Path
) -> None:
    data = served.log.with_name("data")
    wait_until(lambda: noted(data / "spool") is not None, 30)
    done = failed_start(
        tmp_path / "home",
        data,
        DATABASE_URL=named_database("elsewhere").render_as_string(hide_password=False),
        REDIS_URL=served.redis_url,
    )
    assert done.returncode == 1
    assert f"another service uses {data} and stores in another database" in done.stderr
    assert str(served.database_url.database) in done.stderr
