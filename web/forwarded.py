"""Finds out which client sent a request that came through proxies."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple

from starlette.types import Scope

logger = logging.getLogger("bentoml.sentiment")

ANY_PEER = "*"
# Proxies in a row; entries of X-Forwarded-For left of these are not read.
MAX_HOPS = 16
# An IPv6 address with brackets, zone and port has at most 70 characters.
MAX_ENTRY_LENGTH = 80
# Providers give each subscriber at least so many bits of addresses (RFC 6177).
CLIENT_PREFIX_BITS = 64
# All clients on this machine.
LOOPBACK = "127.0.0.1"
# A client without an address, as at a Unix socket.
UNKNOWN = "unknown"
# A client that a proxy on this machine does not name, or is not trusted to: it is on another.
HIDDEN = "hidden"

Address = IPv4Address | IPv6Address


class Forwarded(NamedTuple):
    """What a trusted proxy says of a request; None where it says nothing, or none is trusted."""

    client: str | None = None  # its address, or `HIDDEN`
    scheme: str | None = None


class Proxies:
    """Those that are trusted to say who sent a request.

    Only X-Forwarded-For and X-Forwarded-Proto of trusted peers count. Each proxy appends the
    address that it sees, so that the entries are read from the right: the first one that is not
    itself a trusted proxy is the client. What stands left of it, the client may have invented.
    """

    def __init__(self, trusted: Sequence[str]) -> None:
        """`trusted` are addresses and networks; `*` trusts every peer, but no further hop."""
        self._any_peer = ANY_PEER in trusted
        self._networks = [ip_network(entry) for entry in trusted if entry != ANY_PEER]
        self._warned = False

    def read(self, scope: Scope) -> Forwarded:
        """Read the headers of a request as it came.

        Where a proxy on this machine has forwarded it, and names no client that counts, the client
        is hidden, and not of this machine.
        """
        entries: list[bytes] = []
        scheme = b""
        is_forwarded = False
        for name, value in scope["headers"]:
            if name == b"x-forwarded-for":
                entries.append(value)
            elif name == b"x-forwarded-proto":
                scheme = value.rpartition(b",")[2].strip().lower()
            elif name == b"forwarded":
                is_forwarded = True
        if not entries and not scheme and not is_forwarded:
            return Forwarded()
        peer = parse_address(scope["client"][0]) if scope.get("client") else None
        if not self._any_peer and not (peer and self._is_trusted(peer)):
            if entries or scheme:
                self._warn(peer)
            # A proxy on this machine that nobody has named speaks for clients of others.
            return Forwarded(HIDDEN if _is_own_machine(peer) else None)
        client, is_named = self._first_untrusted(b",".join(entries).decode("latin-1"))
        if not is_named and _is_own_machine(client or peer):
            told: str | None = HIDDEN
        else:
            told = None if client is None else str(client)
        return Forwarded(told, scheme.decode() if scheme in (b"http", b"https") else None)

    def apply(self, scope: Scope) -> None:
        """Replace the peer of a request, and its scheme, by what a trusted proxy says."""
        client, scheme = self.read(scope)
        if scheme is not None:
            scope["scheme"] = scheme
        if client is not None:
            scope["client"] = (client, 0)

    def _first_untrusted(self, forwarded: str) -> tuple[Address | None, bool]:
        """The last address that can be believed, and whether it can be the client's."""
        client = None
        for entry in reversed(forwarded.rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
            hop = parse_address(entry)
            if hop is None:
                return client, False  # the proxy before it vouches for nothing that can be read
            client = hop
            if not self._is_trusted(hop):
                break
        return client, client is not None

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def _warn(self, peer: Address | None) -> None:
        if self._warned:
            return
        self._warned = True
        logger.warning(
            "%s sends X-Forwarded headers, which the service ignores. If that is your proxy, set "
            "FORWARDED_ALLOW_IPS to its address, so that limits count its clients, and "
            "ALLOWED_HOSTS to the names under which clients reach it",
            peer or "a client without an address",
        )


def _is_own_machine(address: Address | None) -> bool:
    """Whether an address, or a Unix socket, which has none, is this machine's."""
    return address is None or address.is_loopback


def parse_address(text: str) -> Address | None:
    """The address in an entry such as `10.0.0.7`, `10.0.0.7:80`, `2001:db8::1`, `[::1]:80`.

    An IPv4 address that an IPv6 socket sees (`::ffff:10.0.0.7`) is that IPv4 address.
    """
    text = text.strip()
    return None if len(text) > MAX_ENTRY_LENGTH else _parsed(text)


# Each request with an address in its Host header has its server's parsed, and few differ.
@lru_cache(maxsize=1_024)
def _parsed(text: str) -> Address | None:
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def peer_name(scope: Scope) -> str:
    """The name of the peer of a request, which is the client once a proxy's word is applied."""
    return client_name(scope["client"][0]) if scope.get("client") else UNKNOWN


@lru_cache(maxsize=4_096)
def client_name(host: str) -> str:
    """What limits count and the audit log names: an IPv4 address, or a /64 of IPv6.

    A client of IPv6 may choose among 2^64 addresses, and one on this machine among 2^24 of the
    loopback network. Each would have limits of its own.
    """
    if host == HIDDEN:
        return HIDDEN
    address = parse_address(host)
    if address is None:
        return UNKNOWN
    if address.is_loopback:
        return LOOPBACK
    if address.version == 4:
        return str(address)
    return str(ip_network((int(address), CLIENT_PREFIX_BITS), strict=False))
