"""The URL at which this machine reaches its own service."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit


def url_of(host: str, port: int) -> str:
    """The URL of an address; IPv6 has brackets around it."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def own_url(host: str, port: int) -> str:
    """The URL of a service of this machine that listens on `host`, all addresses included."""
    return url_of("127.0.0.1" if ip_address(host).is_unspecified else host, port)


def is_own_url(url: str) -> bool:
    """Whether a URL leads to this machine, by loopback: a proxy of the environment cannot know it.

    `HTTP_PROXY` is for the outside, and few set `NO_PROXY` beside it.
    """
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified
