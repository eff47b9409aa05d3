"""Decodes a compressed body (Content-Encoding), bounded in bytes, memory and time."""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import Awaitable, Callable, Iterator
from types import ModuleType
from typing import Any, Protocol

from core.errors import BodyTooLarge, MalformedRequest, UnsupportedCoding
from core.inflate import GZIP, RAW, ZLIB, Inflate

# Input and output of a step, which takes about 0.1 ms. A larger body is decoded in a thread.
STEP_BYTES = 65_536
# gzip and zstd allow several parts in a row, and an empty one takes time too.
MAX_PARTS = 100
# The largest window of a zstd body (RFC 9659) is 8 MiB. A frame may ask for 2 GiB of memory.
ZSTD_WINDOW_LOG = 23
# Waits until a large body may be worked on.
Turn = Callable[[], Awaitable[object]]


class Decoder(Protocol):
    """What decodes one part of a body: the interface of the standard library's decompressors."""

    def decompress(self, data: bytes, max_length: int) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


def _deflate(body: bytes) -> Decoder:
    """HTTP's deflate has zlib's frame (RFC 9110, 8.4.1.2); some clients leave it out."""
    has_frame = body[0] & 0x0F == zlib.DEFLATED and int.from_bytes(body[:2]) % 31 == 0
    return Inflate(ZLIB if has_frame else RAW)


def _zstd() -> ModuleType:
    # Imported here: few clients use it, and every process would pay 3 ms for it.
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def _zstd_decoder(_body: bytes) -> Decoder:
    library: Any = _zstd()
    options = {library.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
    decoder: Decoder = library.ZstdDecompressor(options=options)
    return decoder


_DECODERS: dict[str, Callable[[bytes], Decoder]] = {
    "gzip": lambda _body: Inflate(GZIP),
    "deflate": _deflate,
    "zstd": _zstd_decoder,
}
CODINGS = tuple(_DECODERS)


def content_coding(header: bytes) -> str | None:
    """The coding that a Content-Encoding header names, or None for a body that has none.

    Raises:
        UnsupportedCoding: it names another coding than `CODINGS`, or several.
    """
    names = [name.strip() for name in header.decode("latin-1").lower().split(",")]
    codings = [name.removeprefix("x-") for name in names if name not in ("", "identity")]
    if not codings:
        return None
    if len(codings) > 1 or codings[0] not in _DECODERS:
        raise UnsupportedCoding(
            f"Send the body without a Content-Encoding, or with one of {', '.join(CODINGS)}; not "
            f"{', '.join(codings)[:100]}"
        )
    return codings[0]


async def decode(
    body: bytes,
    coding: str,
    max_bytes: int,
    decoded: bytearray,
    turn: Turn,
) -> None:
    """Decode a body of one of `CODINGS` into `decoded`, which is empty.

    One of more than `STEP_BYTES` waits for its turn.

    Raises:
        BodyTooLarge: it has more than `max_bytes` when decoded.
        MalformedRequest: it is damaged, incomplete, or not of this coding.
    """
    steps = _steps(body, coding)
    try:
        if not _extend(decoded, steps, min(STEP_BYTES, max_bytes)):
            await turn()
            await asyncio.to_thread(_extend, decoded, steps, max_bytes)
    except (zlib.error, _zstd().ZstdError) as error:
        raise MalformedRequest(f"The body is not valid {coding}") from error
    if len(decoded) > max_bytes:
        raise BodyTooLarge(f"A request body may have at most {max_bytes:,} bytes when decoded")


def _extend(decoded: bytearray, steps: Iterator[bytes], max_bytes: int) -> bool:
    """Decode until there are more than `max_bytes`; whether the body ended before that."""
    for piece in steps:
        decoded += piece
        if len(decoded) > max_bytes:
            return False
    return True


def _steps(body: bytes, coding: str) -> Iterator[bytes]:
    """Decode in pieces of at most `STEP_BYTES`, part by part."""
    position = parts = 0
    while position < len(body):
        parts += 1
        if parts > MAX_PARTS:
            raise MalformedRequest(f"A {coding} body may have at most {MAX_PARTS} parts")
        decoder = _DECODERS[coding](body[position : position + 2])
        while not decoder.eof:
            data = b""
            if decoder.needs_input:
                if position == len(body):
                    raise MalformedRequest(f"The {coding} body is incomplete")
                data = body[position : position + STEP_BYTES]
                position += len(data)
            yield decoder.decompress(data, STEP_BYTES)
        position -= len(decoder.unused_data)
