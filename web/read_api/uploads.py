"""Receives a file of any size: to disk piece by piece, within a size and a time."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fastapi import Request
from starlette.requests import ClientDisconnect

from core import metrics
from core.errors import BodyTooLarge, BodyTooSlow, MalformedRequest, RateLimited
from core.private_files import open_private
from web.read_api.file_threads import in_file_thread

WRITE_BYTES = 1 << 20
# The room for all jobs is checked again after so many bytes.
CHECK_BYTES = 16 << 20
# A caller may send so many files at a time, to each API process.
MAX_ARRIVING = 20


class UploadBounds(NamedTuple):
    """The largest upload, and the longest pause within one."""

    max_bytes: int
    pause_seconds: float


class Arrivals:
    """The files that are being sent to this process."""

    def __init__(self) -> None:
        self._callers: Counter[str] = Counter()
        # A file of some megabytes may take hundreds of them to open, and a second or two.
        self._opening = asyncio.Lock()
        self._own: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @contextmanager
    def counted(self, caller: str) -> Iterator[None]:
        """Count a file while it comes: each may take as long as its client likes.

        Raises:
            RateLimited: as many of this caller are under way as it may have jobs.
        """
        if self._callers[caller] >= MAX_ARRIVING:
            raise RateLimited(
                f"A caller may send {MAX_ARRIVING} files at a time", retry_after_seconds=60
            )
        self._callers[caller] += 1
        try:
            yield
        finally:
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]
                self._own.pop(caller, None)

    @asynccontextmanager
    async def opening(self, caller: str) -> AsyncIterator[None]:
        """Open one file at a time; a caller waits for one of each other caller, however many come.

        It is within `counted`.
        """
        async with self._own[caller], self._opening:
            yield


async def receive_file(
    request: Request, file: Path, bounds: UploadBounds, check_bytes: Callable[[int], object]
) -> None:
    """Write the body of a request to `file`.

    Raises:
        BodyTooLarge: the body is, or says it is, larger than `bounds` allow.
        BodyTooSlow: the client made a longer pause.
        MalformedRequest: the client hung up.
        StorageFull: `check_bytes` has no room for it.
        OSError: it cannot be written.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit():
        _check_size(int(announced), bounds)
        await in_file_thread(check_bytes, int(announced))
    opened = await in_file_thread(_open, file)
    try:
        await _receive(request, opened, bounds, check_bytes)
    finally:
        await in_file_thread(opened.close)


async def _receive(
    request: Request, file: BinaryIO, bounds: UploadBounds, check_bytes: Callable[[int], object]
) -> None:
    parts: list[bytes] = []
    waiting = received = checked = 0
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(bounds.pause_seconds):
                part = await anext(stream, None)
        except TimeoutError as error:
            metrics.timed_out_requests.labels("body").inc()
            raise BodyTooSlow(f"No byte of the file came for {bounds.pause_seconds:g} s") from error
        except ClientDisconnect as error:
            raise MalformedRequest("The body ended before all of it had come") from error
        if part is not None:
            received += len(part)
            _check_size(received, bounds)
            parts.append(part)
            waiting += len(part)
        if received - checked >= CHECK_BYTES:
            checked = received
            await in_file_thread(check_bytes, waiting)
        if waiting >= WRITE_BYTES or part is None:
            await in_file_thread(file.write, b"".join(parts))
            parts.clear()
            waiting = 0
        if part is None:
            await in_file_thread(file.flush)
            return


def _open(file: Path) -> BinaryIO:
    # Buffered: a raw file may write less than it is given.
    return open(file, "wb", opener=open_private)


def _check_size(size: int, bounds: UploadBounds) -> None:
    if size > bounds.max_bytes:
        raise BodyTooLarge(f"A file may have at most {bounds.max_bytes:,} bytes")
