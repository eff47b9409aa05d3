"""A file that somebody watches being read, who may end that."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from datafiles.chunks import InvalidInput

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Called while a file is read, before each block of it; an error of its own ends the reading.
Watch = Callable[[], object]
# Of a core, until the columns of a file are known: usual ones take a hundredth of it.
MAX_OPENING_SECONDS = 2.0


def not_watched() -> None:
    """Let a file be read to its end."""


def opening_watch() -> Watch:
    """End the reading of a file that takes a core for long before there is a row.

    What is read is a stranger's, and others wait. Counted is the time of this thread on a core, so
    that a busy machine or a slow disk is nobody's fault.
    """
    began = time.thread_time()

    def check() -> None:
        if time.thread_time() - began > MAX_OPENING_SECONDS:
            raise InvalidInput(
                f"after {MAX_OPENING_SECONDS:g} s of work it is not known what is in it"
            )

    return check


class WatchedFile(io.RawIOBase):
    """A file, opened to be read."""

    def __init__(self, path: Path, watch: Watch) -> None:
        self._file = path.open("rb", buffering=0)
        self._watch = watch

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        self._watch()
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()
