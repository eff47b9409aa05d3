"""Sockets that listen on every address take both families."""

from __future__ import annotations

import socket

import pytest

from serving.machine_check import accept_both_families
from serving.preflight import check_addresses


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
