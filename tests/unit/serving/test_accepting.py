"""A burst of new connections is accepted in few turns of the event loop."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest
import uvicorn
import uvloop
from uvicorn.lifespan.off import LifespanOff

from serving.accepting import ACCEPTS_PER_TURN, BACKLOG, AcceptingServer, accept_in_bursts

CLIENTS = 160


class _Counted(asyncio.Protocol):
    """Counts the connections that the server has accepted."""

    accepted = 0

    def __init__(self, **_: object) -> None:
        pass

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        type(self).accepted += 1
        cast("asyncio.Transport", transport).abort()


@pytest.fixture(params=["tcp", "unix"])
def listener(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[socket.socket]:
    is_unix = request.param == "unix"
    with socket.socket(socket.AF_UNIX if is_unix else socket.AF_INET) as listener:
        listener.bind(str(tmp_path_factory.mktemp("s") / "s") if is_unix else ("127.0.0.1", 0))
        listener.listen(2 * CLIENTS)
        listener.setblocking(False)
        yield listener


async def _no_app(scope: object, receive: object, send: object) -> None:
    """Never called."""


class _Watched(socket.socket):
    """Notes whether a copy of it made the socket of all processes wait."""

    waited = False

    def setblocking(self, flag: bool) -> None:
        type(self).waited |= os.get_blocking(self.fileno())
        super().setblocking(flag)


async def _turns_to_accept(listener: socket.socket) -> int:
    """The turns in which a server accepts the clients that wait when it starts."""
    _Counted.accepted = 0
    config = uvicorn.Config(_no_app, http=_Counted, log_config=None)
    config.load()
    server = AcceptingServer(config)
    server.lifespan = LifespanOff(config)
    await server.startup([listener])
    turns = 0
    while _Counted.accepted < CLIENTS and turns < 2 * CLIENTS:
        turns += 1
        await asyncio.sleep(0)
    for started in server.servers:
        started.close()
        await started.wait_closed()
    return turns


def test_waiting_clients_are_accepted_many_in_a_turn(listener: socket.socket) -> None:
    with ExitStack() as clients:
        for _ in range(CLIENTS):
            client = clients.enter_context(socket.socket(listener.family))
            client.connect(listener.getsockname())

        turns = uvloop.run(_turns_to_accept(listener))

    assert turns < 3 * CLIENTS / ACCEPTS_PER_TURN


def test_socket_of_several_processes_never_waits_for_a_connection(
    listener: socket.socket,
) -> None:
    """A worker that starts shares it with others, which would hang in accept() until one came."""
    # As BentoML opens the socket that it inherits: Python takes it for one that waits.
    with _Watched(fileno=os.dup(listener.fileno())) as inherited:
        _Watched.waited = False
        uvloop.run(_turns_to_accept(inherited))
        assert not os.get_blocking(listener.fileno())
        assert not _Watched.waited


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell it")
@pytest.mark.parametrize("listener", ["tcp"], indirect=True)
def test_as_many_clients_wait_to_be_accepted_as_the_system_allows(
    listener: socket.socket,
) -> None:
    with listener.dup() as kept:
        uvloop.run(_turns_to_accept(listener))
        told = kept.getsockopt(socket.SOL_TCP, socket.TCP_INFO, 32)

    # Of a socket that listens, `tcpi_sacked` of <linux/tcp.h> is the bound.
    [bound] = struct.unpack_from("I", told, 28)
    allowed = int(Path("/proc/sys/net/core/somaxconn").read_text(encoding="utf-8"))
    assert bound == min(BACKLOG, allowed)


def test_a_process_starts_servers_that_accept_in_bursts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn, "Server", uvicorn.Server)

    accept_in_bursts()

    assert uvicorn.Server is AcceptingServer
