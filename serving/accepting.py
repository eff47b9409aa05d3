"""A server that accepts many connections in one turn of its event loop.

libuv, on which uvloop runs, accepts one connection in each turn. A turn answers every connection
that has sent something: with 300 busy clients it takes 0.1 s, so that a new client, or a probe,
waited as long as 20 s behind those who had come with it.

What the system has no room for until they are accepted, its clients send again after 1, 3 and 7 s.
"""

from __future__ import annotations

import socket

import uvicorn

ACCEPTS_PER_TURN = 32
# Connections that wait to be accepted: as many as the system allows, which is 4,096 on most.
BACKLOG = 65_535


class AcceptingServer(uvicorn.Server):
    """Watches each of its sockets `ACCEPTS_PER_TURN` times. Each watch accepts a connection."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        copies = []
        for original in sockets or ():
            # Python takes an inherited socket for one that waits. Its copies would make it one, for
            # all processes that share it: those that serve would hang until another client came.
            original.setblocking(False)
            copies += [original.dup() for _ in range(1, ACCEPTS_PER_TURN)]
        self.config.backlog = BACKLOG
        await super().startup(sockets and [*sockets, *copies])


def accept_in_bursts() -> None:
    """Make every server that this process starts from now on accept in bursts."""
    uvicorn.Server = AcceptingServer  # type: ignore[misc]
