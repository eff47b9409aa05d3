"""Resolves the name in a runner's URL, which may stand for many hosts.

A headless Service of Kubernetes has an address for each of its pods.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit


async def resolve(url: str) -> Collection[str]:
    """A URL for each address of the name in `url`, or `url` if it has no name.

    Raises:
        OSError: the name is unknown.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None or _is_address(parts.hostname):
        return [url]
    port = parts.port or 80
    found = await asyncio.get_running_loop().getaddrinfo(
        parts.hostname, port, type=socket.SOCK_STREAM
    )
    hosts = {str(address[0]) for *_, address in found}
    return [f"http://{f'[{host}]' if ':' in host else host}:{port}{parts.path}" for host in hosts]


def _is_address(host: str) -> bool:
    with suppress(ValueError):
        ip_address(host)
        return True
    return False
