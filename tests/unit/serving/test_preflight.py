"""Sockets that listen on every address take both families."""

from __future__ import annotations

import socket

import pytest

from serving.machine_check import _RESERVED, accept_both_families
from serving.preflight import check_addresses, reserve_localhosts


def test_socket_of_all_addresses_takes_ipv4_whatever_the_system_says() -> None:
    with socket.socket(socket.AF_INET6) as listener:
        # As net.ipv6.bindv6only has it.
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        accept_both_families(listener)
        listener.bind(("::", 0))
        listener.listen()
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port), timeout=5).close()


def test_socket_of_ipv4_stays_as_it_is() -> None:
    with socket.socket() as listener:
        accept_both_families(listener)
        listener.bind(("127.0.0.1", 0))


@pytest.mark.parametrize("taken", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_port_that_another_program_has_in_either_family_ends_the_start(taken: str) -> None:
    family = socket.AF_INET6 if ":" in taken else socket.AF_INET
    with socket.socket(family) as other:
        other.bind((taken, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SystemExit, match=f"port {port} of :: cannot be used"):
            check_addresses([("::", port)])


@pytest.mark.parametrize(("host", "other"), [("127.0.0.1", "::1"), ("::1", "127.0.0.1")])
def test_other_loopback_address_is_kept_from_other_programs(host: str, other: str) -> None:
    """Else a program of another user may listen where `localhost` leads first."""
    family = socket.AF_INET6 if ":" in other else socket.AF_INET
    with socket.socket(family) as free:
        free.bind((other, 0))
        port = free.getsockname()[1]
    try:
        reserve_localhosts([(host, port)])
        with socket.socket(family) as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="Address already in use"):
                stranger.bind((other, port))
        # Clients go on to the service's own address.
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((other, port), timeout=5)
    finally:
        while _RESERVED:
            _RESERVED.pop().close()


def test_program_at_the_other_loopback_address_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket(socket.AF_INET6) as stranger:
        stranger.bind(("::1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        reserve_localhosts([("127.0.0.1", port)])
    assert f"another program has port {port} of ::1, where `localhost` may lead" in caplog.text
    assert _RESERVED == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "127.0.0.2", "192.0.2.1"])
def test_other_addresses_reserve_nothing(host: str) -> None:
    reserve_localhosts([(host, 3000)])
    assert _RESERVED == []
