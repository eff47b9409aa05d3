"""The URL of the machine's own service, and which URLs no proxy of the environment may get."""

from __future__ import annotations

import pytest

from core.own_url import is_own_url, own_url, url_of


@pytest.mark.parametrize(
    ("host", "address", "own"),
    [
        ("127.0.0.1", "http://127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("0.0.0.0", "http://0.0.0.0:3000", "http://127.0.0.1:3000"),
        # A socket of `::` takes IPv4 too, also on a machine whose loopback has no IPv6.
        ("::", "http://[::]:3000", "http://127.0.0.1:3000"),
        ("::1", "http://[::1]:3000", "http://[::1]:3000"),
        ("10.0.0.7", "http://10.0.0.7:3000", "http://10.0.0.7:3000"),
        ("2001:db8::7", "http://[2001:db8::7]:3000", "http://[2001:db8::7]:3000"),
    ],
)
def test_address_has_its_url(host: str, address: str, own: str) -> None:
    assert url_of(host, 3000) == address
    assert own_url(host, 3000) == own


@pytest.mark.parametrize(
    ("url", "is_own"),
    [
        ("http://127.0.0.1:3000", True),
        ("http://127.8.8.8", True),
        ("http://localhost:3000/models/sentiment", True),
        ("http://LOCALHOST", True),
        ("http://api.localhost:80", True),
        ("https://[::1]:3000", True),
        ("http://0.0.0.0:3000", True),
        ("http://[::]:3000", True),
        ("http://[::ffff:127.0.0.1]:3000", True),
        ("http://10.0.0.7:3000", False),
        ("http://[2001:db8::7]:3000", False),
        ("https://sentiment.example", False),
        ("http://localhost.example", False),
        ("http://127.0.0.1.example", False),
        ("http://127.0.0.1@example.org", False),
        ("http://[bad", False),
        ("", False),
    ],
)
def test_only_loopback_is_this_machine(url: str, is_own: bool) -> None:
    assert is_own_url(url) == is_own
