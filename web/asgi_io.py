"""Reads bodies and sends JSON replies as plain ASGI messages."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Receive, Send

from core.errors import MalformedRequest

JSON_CONTENT_TYPE = "application/json"


async def read_body(receive: Receive) -> bytes:
    """The whole body of a request.

    Raises:
        MalformedRequest: the client hung up before it had sent all.
    """
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise MalformedRequest("The body ended before all of it had come")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def send_response(
    send: Send,
    status: int,
    body: bytes,
    content_type: str = JSON_CONTENT_TYPE,
    headers: Mapping[str, str] | None = None,
) -> None:
    raw = [
        (b"content-length", str(len(body)).encode()),
        (b"content-type", content_type.encode()),
        *((name.lower().encode(), value.encode()) for name, value in (headers or {}).items()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
