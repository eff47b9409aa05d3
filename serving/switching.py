"""Gives an HTTP connection to another protocol, if the app agrees to the request for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.connection import BoundedConnection


class Switch:
    """The `core.asgi.Upgrade` of a request."""

    def __init__(self, connection: BoundedConnection, protocol: str) -> None:
        self._protocol = protocol
        self.connections: set[Any] = connection.connections
        self._connection = connection

    @property
    def protocol(self) -> str:
        return self._protocol if self._connection.can_leave() else ""

    def switch(self, protocol: asyncio.Protocol) -> None:
        """Agree, and give the connection away; the app then sends no response."""
        self._connection.leave()
        transport = self._connection.transport
        transport.set_protocol(protocol)
        transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
            b"Upgrade: " + self._protocol.encode("latin-1") + b"\r\n\r\n"
        )
        protocol.connection_made(transport)
