"""Plain ASGI: sends a response, tells where a request came from, notices a client that leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, Protocol, cast

from starlette.types import Receive, Scope, Send

JSON_CONTENT_TYPE = "application/json"
# A watch costs a task, and most requests are over before a watch would notice anything.
WATCHED_AFTER_SECONDS = 0.02
# `::ffff:127.` is the IPv4 loopback as a server that listens on `::` sees it.
_LOOPBACK = ("127.", "::ffff:127.")


# The ASGI extension of a request that wishes for another protocol.
UPGRADE_EXTENSION = "upgrade"


class Upgrade(Protocol):
    """A request's wish for another protocol on its connection; the app may ignore it."""

    @property
    def protocol(self) -> str:
        """The protocol; "" if the client did not wait for an answer, or has left."""

    # All connections of the server, which asks each to end when it stops.
    connections: set[Any]

    def switch(self, protocol: asyncio.Protocol) -> None:
        """Agree, and give the connection away; the app then sends no response."""


class Answer(NamedTuple):
    """The body of a reply, its type, and its other headers."""

    body: bytes
    content_type: str = JSON_CONTENT_TYPE
    headers: Mapping[str, str] | None = None


class ClientDisconnected(Exception):
    """The client closed its connection before the answer began."""


async def send_response(
    send: Send,
    status: int,
    body: bytes,
    content_type: str = JSON_CONTENT_TYPE,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Send a whole response."""
    raw = [
        (b"content-length", str(len(body)).encode()),
        (b"content-type", content_type.encode()),
        *((name.lower().encode(), value.encode()) for name, value in (headers or {}).items()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def wanted_upgrade(scope: Scope, protocol: str) -> Upgrade | None:
    """The request's wish for `protocol`, if it has that one."""
    upgrade: Upgrade | None = scope.get("extensions", {}).get(UPGRADE_EXTENSION)
    return upgrade if upgrade is not None and upgrade.protocol == protocol else None


def came_over_loopback(scope: Scope) -> bool:
    """Whether this machine sent the request.

    The server's own address decides: a proxy may write any sender's address.
    """
    server = scope.get("server")
    # Without a port the request came over a Unix socket.
    if server is None or server[1] is None:
        return True
    address: str = server[0]
    return address == "::1" or address.startswith(_LOOPBACK)


@asynccontextmanager
async def cancelled_on_disconnect(receive: Receive) -> AsyncIterator[None]:
    """Cancel the block when the client hangs up.

    The request's body has been read whole: until the block ends, this alone calls `receive`.
    Queued work of a cancelled request is not computed, unless another request needs it too.

    Raises:
        ClientDisconnected: the client hung up; nobody waits for the answer.
    """
    task = cast("asyncio.Task[None]", asyncio.current_task())  # a coroutine runs in a task
    has_left = False
    watch: asyncio.Task[None] | None = None

    async def wait_for_disconnect() -> None:
        nonlocal has_left
        while (await receive())["type"] != "http.disconnect":
            pass
        has_left = True
        task.cancel()

    def start_watch() -> None:
        nonlocal watch
        watch = asyncio.create_task(wait_for_disconnect())

    timer = asyncio.get_running_loop().call_later(WATCHED_AFTER_SECONDS, start_watch)
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:  # noqa: BLE001  raised again below, unless it is ours
        error = raised
    timer.cancel()
    if watch is not None:
        watch.cancel()
    if has_left:
        if not isinstance(error, asyncio.CancelledError):
            # The block ended before our cancellation came, or swallowed it; take what is pending.
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        if task.uncancel():
            raise asyncio.CancelledError from None  # the server's own, beside ours
        if error is None or isinstance(error, asyncio.CancelledError):
            raise ClientDisconnected from None
    if error is not None:
        raise error
