"""The client of a request is whom a trusted proxy names, and nobody else can choose its name."""

from __future__ import annotations

import logging

import pytest
from starlette.types import Scope

from web.forwarded import HIDDEN, MAX_HOPS, Proxies, client_name, parse_address

PROXY = "10.0.0.2"


def seen(
    proxies: Proxies, peer: str | None, *values: str, proto: str | None = None
) -> tuple[str | None, str]:
    """The client and the scheme that the app sees."""
    headers = [(b"x-forwarded-for", value.encode()) for value in values]
    if proto is not None:
        headers.append((b"x-forwarded-proto", proto.encode()))
    scope: Scope = {
        "type": "http", "scheme": "http", "headers": headers,
        "client": None if peer is None else (peer, 5_000),
    }  # fmt: skip
    proxies.apply(scope)
    return (scope["client"] and scope["client"][0]), scope["scheme"]


def trusting(*trusted: str) -> Proxies:
    return Proxies(trusted)


@pytest.mark.parametrize(
    ("trusted", "peer", "values", "client"),
    [
        # Nobody is trusted. A proxy on this machine may speak for others all the same.
        ((), "127.0.0.1", ["203.0.113.9"], HIDDEN),
        ((), "127.0.0.1", ["127.0.0.1"], HIDDEN),
        ((), "::1", ["unknown"], HIDDEN),
        ((PROXY,), "10.0.0.3", ["203.0.113.9"], "10.0.0.3"),
        ((PROXY,), None, ["203.0.113.9"], HIDDEN),
        ((PROXY,), PROXY, ["203.0.113.9"], "203.0.113.9"),
        ((PROXY,), f"::ffff:{PROXY}", ["203.0.113.9"], "203.0.113.9"),
        # What the client wrote itself stands left of what the proxy appended.
        ((PROXY,), PROXY, ["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        ((PROXY,), PROXY, ["198.51.100.1", "203.0.113.9"], "203.0.113.9"),
        (("*",), PROXY, ["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        (("*",), "10.0.0.3", ["203.0.113.9"], "203.0.113.9"),
        (("*",), None, ["203.0.113.9"], "203.0.113.9"),
        # Two proxies in a row, both known.
        (("10.0.0.0/8",), PROXY, ["198.51.100.1, 203.0.113.9, 10.0.0.3"], "203.0.113.9"),
        (("*", "10.0.0.0/8"), "192.0.2.1", ["198.51.100.1, 203.0.113.9, 10.0.0.3"], "203.0.113.9"),
        # All of them are proxies: the farthest one is the client.
        (("10.0.0.0/8",), PROXY, ["10.0.0.7, 10.0.0.3"], "10.0.0.7"),
        (("2001:db8::/32",), "2001:db8::1", ["2001:db9::5"], "2001:db9::5"),
        ((PROXY,), PROXY, ["203.0.113.9:55123"], "203.0.113.9"),
        ((PROXY,), PROXY, ["[2001:db8::7]:443"], "2001:db8::7"),
        # Nothing that can be read: what vouches for it is the client.
        ((PROXY,), PROXY, ["unknown"], PROXY),
        ((PROXY,), PROXY, [""], PROXY),
        ((PROXY,), PROXY, ["x" * 50_000], PROXY),
        (("10.0.0.0/8",), PROXY, ["evil, 10.0.0.3"], "10.0.0.3"),
        # Somebody behind a proxy on this machine, who is not on this machine.
        (("127.0.0.1",), "127.0.0.1", ["unknown"], HIDDEN),
        (("127.0.0.1",), "127.0.0.1", ["203.0.113.9, "], HIDDEN),
        (("127.0.0.1",), "127.0.0.1", ["_hidden, 127.0.0.1"], HIDDEN),
        (("::1",), "::1", ["garbage"], HIDDEN),
        (("*",), None, ["unknown"], HIDDEN),
        # And somebody who is.
        (("127.0.0.1",), "127.0.0.1", ["127.0.0.1"], "127.0.0.1"),
    ],
)
def test_client_is_the_first_from_the_right_that_is_no_trusted_proxy(
    trusted: tuple[str, ...], peer: str | None, values: list[str], client: str | None
) -> None:
    assert seen(trusting(*trusted), peer, *values)[0] == client


@pytest.mark.parametrize("trusted", [("127.0.0.1",), ()])
@pytest.mark.parametrize(
    "header", [(b"forwarded", b"for=203.0.113.9"), (b"x-forwarded-proto", b"https")]
)
def test_client_behind_a_proxy_that_sends_another_header_alone_is_hidden(
    trusted: tuple[str, ...], header: tuple[bytes, bytes]
) -> None:
    scope: Scope = {
        "type": "http",
        "scheme": "http",
        "headers": [header],
        "client": ("127.0.0.1", 5_000),
    }
    trusting(*trusted).apply(scope)
    assert client_name(scope["client"][0]) == HIDDEN


def test_entries_are_read_up_to_a_number_of_hops() -> None:
    hops = ["198.51.100.1", *["10.0.0.3"] * 10_000]
    assert seen(trusting("10.0.0.0/8"), PROXY, ",".join(hops))[0] == "10.0.0.3"
    hops = ["198.51.100.1", *["10.0.0.3"] * (MAX_HOPS - 1)]
    assert seen(trusting("10.0.0.0/8"), PROXY, ",".join(hops))[0] == "198.51.100.1"


@pytest.mark.parametrize(
    ("peer", "proto", "scheme"),
    [
        (PROXY, "https", "https"),
        (PROXY, "http, HTTPS", "https"),
        (PROXY, "javascript", "http"),
        ("10.0.0.3", "https", "http"),
    ],
)
def test_scheme_is_that_of_a_trusted_proxy(peer: str, proto: str, scheme: str) -> None:
    assert seen(trusting(PROXY), peer, proto=proto)[1] == scheme


def test_first_header_of_an_untrusted_peer_is_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    layer = trusting(PROXY)
    with caplog.at_level(logging.WARNING):
        seen(layer, PROXY, "203.0.113.9")
        seen(layer, "10.0.0.3")
        assert caplog.messages == []
        seen(layer, "10.0.0.3", "203.0.113.9")
        seen(layer, "10.0.0.4", "203.0.113.9")
    [message] = caplog.messages
    assert message.startswith("10.0.0.3 sends")
    assert "FORWARDED_ALLOW_IPS" in message
    assert "ALLOWED_HOSTS" in message
    assert "203.0.113.9" not in message


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        # This machine, however it writes its address.
        *(
            (host, "127.0.0.1")
            for host in (
                *("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.255.255.254", "127.1.2.3", "::1"),
                *("::ffff:127.0.0.1", "::ffff:127.0.0.2", "::ffff:7f00:9", "0:0:0:0:0:0:0:1"),
                *("::1%lo", "[::1]:80", "127.0.0.9:4321"),
            )
        ),
        ("128.0.0.1", "128.0.0.1"),
        ("126.255.255.255", "126.255.255.255"),
        ("::ffff:128.0.0.1", "128.0.0.1"),
        ("::2", "::/64"),
        ("x" * 50_000, "unknown"),
        ("", "unknown"),
    ],
)
def test_name_of_a_client_is_bounded_and_a_whole_64_of_ipv6(host: str, name: str) -> None:
    assert client_name(host) == name


@pytest.mark.parametrize("text", ["", "x", "1.2.3", "[::1", "[]", "::1]", "1.2.3.4.5", "[x]:1"])
def test_text_that_is_no_address_is_none(text: str) -> None:
    address = parse_address(text)
    assert address is None or text == "[::1"
