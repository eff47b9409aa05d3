"""The values of metrics in a file that its process maps; a full disk must not kill the process."""

from __future__ import annotations

import logging
import mmap
import os
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from prometheus_client.mmap_dict import MmapedDict

from core.errors import describe_error
from core.metrics_files import ENTRY_BYTES, HEADER_BYTES

logger = logging.getLogger("bentoml.sentiment")

INITIAL_BYTES = 1 << 16
# Between two tries to write what is kept in memory.
RETRY_SECONDS = 5.0
# Of a file: how much of it is used, and padding.
_HEADER = struct.Struct("ii")

# In the place of the folder: this process counts nothing, but those that it forks will. No folder
# has this path.
UNOPENED = "/dev/null/unopened"

_Mapped: Any = MmapedDict  # it has no types


class ReservedMmapedDict(_Mapped):  # type: ignore[misc]
    """Writes the blocks of its file before it maps them.

    prometheus_client makes files with holes. The kernel fills a hole when a value is written, and
    kills the process (SIGBUS) if the disk is full by then. Here the values stay in memory until
    there is room again; `/metrics` shows those from before meanwhile.
    """

    _m: mmap.mmap
    _capacity: int
    _f: IO[bytes] | None
    _retry_at = 0.0
    # Of the file, which is merged with those of dead processes unless somebody has it open.
    _held: IO[bytes] | None = None

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        try:
            with Path(filename).open("ab") as file:
                if not read_mode and not os.fstat(file.fileno()).st_size:
                    _fill(file, INITIAL_BYTES)
            super().__init__(filename, read_mode)
        except OSError as error:
            if read_mode:
                raise
            self._f = None
            self._fname = filename
            self._positions: dict[str, int] = {}
            self._used = HEADER_BYTES
            self._keep_in_memory(INITIAL_BYTES, error)
            self._m[:HEADER_BYTES] = _HEADER.pack(self._used, 0)

    def _init_value(self, key: str) -> None:
        needed = self._used + len(key.encode()) + ENTRY_BYTES
        while needed > self._capacity:
            self._grow()
        super()._init_value(key)

    def _grow(self) -> None:
        capacity = 2 * self._capacity
        if self._f is None:
            self._keep_in_memory(capacity)
            return
        try:
            _fill(self._f, capacity)
            self._m = mmap.mmap(self._f.fileno(), capacity)
            self._capacity = capacity
        except OSError as error:
            self._keep_in_memory(capacity, error)

    def _keep_in_memory(self, capacity: int, error: OSError | None = None) -> None:
        values = mmap.mmap(-1, capacity)
        if before := getattr(self, "_m", None):
            values[: self._used] = before[: self._used]
        self._m, self._capacity = values, capacity
        if error is not None:
            self._f = None
            with suppress(OSError):
                self._held = Path(self._fname).open("rb")  # noqa: SIM115
            self._retry_at = time.monotonic() + RETRY_SECONDS
            self.write_value = self._write_in_memory
            logger.error(
                "%s cannot be written, so /metrics lacks what this process counts until it can: %s",
                self._fname,
                describe_error(error),
            )

    def _write_in_memory(self, key: str, value: float, timestamp: float) -> None:
        """As `write_value`, which it replaces meanwhile; tries the file again now and then."""
        super().write_value(key, value, timestamp)
        if time.monotonic() < self._retry_at:
            return
        try:
            self._return_to_file()
        except OSError:
            self._retry_at = time.monotonic() + RETRY_SECONDS
        else:
            del self.write_value
            self._release()
            logger.info("%s can be written again", self._fname)

    def _return_to_file(self) -> None:
        file = Path(self._fname).open("a+b")  # noqa: SIM115
        try:
            _fill(file, self._capacity)
            values = mmap.mmap(file.fileno(), self._capacity)
        except OSError:
            file.close()
            raise
        values[: self._used] = self._m[: self._used]
        self._m, self._f = values, file

    def _release(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def close(self) -> None:
        self._release()
        if self._f is not None:
            super().close()


def _fill(file: IO[bytes], size: int) -> None:
    """Make a file that is opened for appending so large, without a hole.

    Past the buffer of the file: what a full disk refuses would be written when it is closed.

    Raises:
        OSError: there is no room for all of it.
    """
    missing = size - os.fstat(file.fileno()).st_size
    while missing > 0:
        missing -= os.write(file.fileno(), bytes(missing))


class UnopenedDict:
    """The values of a process with `UNOPENED`: no file, and every value is 0."""

    def __init__(self, filename: str) -> None:
        pass

    def read_value(self, _key: str) -> tuple[float, float]:
        return 0.0, 0.0

    def write_value(self, _key: str, _value: float, _timestamp: float) -> None:
        pass

    def close(self) -> None:
        pass
