"""A real HAProxy before the API hosts, as a cluster's load balancer."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from loadtest.ports import free_port
from tests.waiting import wait_until

# It asks each host five times a second whether it is ready, and believes the second answer.
CONFIGURATION = """
global
  stats socket {folder}/stats level admin
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  timeout check 5s
  option redispatch
  retries 3
  {retries}
frontend all
  bind 127.0.0.1:{port}
  default_backend api
backend api
  balance leastconn
  option httpchk GET /readyz
  default-server check inter 200ms fall 2 rise 2
{servers}
"""
# A request whose machine dies is sent again to another one, if HAProxy has all of it. On a
# connection that has carried a request before, it leaves that to its client.
RETRY_ALL = (
    "retry-on all-retryable-errors\n  option http-buffer-request\n"
    "  http-reuse never\n  option http-server-close"
)


@contextmanager
def haproxy(folder: Path, servers: Sequence[str], *, retries: str = "") -> Iterator[str]:
    """Balance the `servers` (ADDRESS:PORT) until the block ends; yield the URL."""
    program = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None, "install haproxy"
    folder.mkdir()
    port = free_port()
    lines = "\n".join(f"  server api{number} {each}" for number, each in enumerate(servers))
    file = folder / "haproxy.cfg"
    file.write_text(CONFIGURATION.format(folder=folder, port=port, retries=retries, servers=lines))
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([program, "-db", "-f", str(file)])
    try:
        wait_until(lambda: _is_ready(url), seconds=30)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").is_success
    except httpx.TransportError:
        return False
