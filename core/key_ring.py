"""The API keys that are valid now: those of the setting, and those of a file that is watched."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from codecs import BOM_UTF8
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from core.api_keys import ApiKey, find_key, parse_key_file
from core.atomic_file import write_atomically
from core.background import Background
from core.errors import describe_error
from core.other_writers import check_owners, check_replaceable, writers
from core.private_files import open_followed

logger = logging.getLogger("bentoml.sentiment.keys")

# A change counts once two reads in a row have found it, because the first may have found half.
POLL_SECONDS = 0.5
MAX_FILE_BYTES = 1 << 20


class KeyRing(Background):
    """Finds the key of a request. Every API process watches the file for itself.

    Of a file with invalid lines, the others count: a line that is gone always revokes its key. A
    file that cannot be read changes nothing, also not for a process that replaces another one: the
    content that counted is kept.
    """

    def __init__(
        self,
        configured: Sequence[ApiKey] = (),
        file: Path | None = None,
        *,
        kept: Path | None = None,
    ) -> None:
        """`kept` is the file that keeps the content of `file`, which has hashes and no keys."""
        self._configured = tuple(configured)
        self._file = file
        self._kept = kept
        self._is_kept = False
        self._content: bytes | None = None  # that counts now
        self._next_content: bytes | None = None  # of the last read
        self._error = ""
        self.keys = self._configured
        # Unix times by SHA-256, of this process.
        self.last_used: dict[str, float] = {}

    @property
    def is_required(self) -> bool:
        """Whether requests need a key. An empty file closes the service; it does not open it."""
        return bool(self._configured) or self._file is not None

    def find(self, sent: str) -> ApiKey | None:
        """Find the key that a client sent, and note its use."""
        key = find_key(self.keys, sent)
        if key is not None:
            self.last_used[key.sha256] = time.time()
        return key

    def start(self) -> None:
        if self._file is not None:
            for _ in range(2):
                self.refresh(self._file)
            if self._content is None:
                self._restore(self._file)
            super().start()

    def refresh(self, file: Path) -> None:
        """Read the file, and apply it if it has changed and the read before found the same."""
        try:
            content = read_key_file(file)
        except (OSError, ValueError) as error:
            if self._error != (text := describe_error(error)):
                self._error = text
                logger.warning("API_KEYS_FILE cannot be read, and its keys stay: %s", text)
            return
        self._error = ""
        is_settled, self._next_content = content == self._next_content, content
        if is_settled and content != self._content:
            self._content, self._is_kept = content, False
            self._apply(content.decode(errors="replace"))
        if is_settled and not self._is_kept:
            self._keep(file, content)

    def _keep(self, file: Path, content: bytes) -> None:
        """Write the content down, or remove what was there: a key may be revoked since."""
        if self._kept is None:
            return
        with suppress(OSError):
            try:
                write_atomically(self._kept, _origin(file) + content)
                self._is_kept = True
            except OSError:
                self._kept.unlink()

    def _restore(self, file: Path) -> None:
        """Apply what was written down, unless it is of another file."""
        with suppress(OSError, ValueError):
            content = read_key_file(self._kept) if self._kept is not None else b""
            if content.startswith(_origin(file)):
                self._apply(content.decode(errors="replace"))

    def _apply(self, text: str) -> None:
        of_file, faults = parse_key_file(text)
        configured = {key.sha256: key for key in self._configured}
        for key in of_file:
            if other := configured.get(key.sha256):
                faults.append(f"{key.name} has the same key as {other.name} of API_KEYS")
        of_file = tuple(key for key in of_file if key.sha256 not in configured)
        for fault in faults:
            logger.warning("API_KEYS_FILE: %s; the key of this line is not valid", fault)
        self.keys = (*self._configured, *of_file)
        logger.info(
            "API_KEYS_FILE has %d keys: %s",
            len(of_file),
            ", ".join(sorted({key.name for key in of_file})) or "nobody can use the service",
        )

    async def _run(self) -> None:
        while self._file is not None:
            await asyncio.sleep(POLL_SECONDS)
            await asyncio.to_thread(self.refresh, self._file)


def _origin(file: Path) -> bytes:
    """The first line of what is kept of a file: a comment."""
    return b"# %s\n" % os.fsencode(repr(str(file.absolute())))


def read_key_file(file: Path) -> bytes:
    """Read a file of keys, without the mark that editors of Windows put before it.

    Raises:
        OSError: it cannot be read, or is no file.
        ValueError: other users of the machine own it or could add keys to it, or it is too large.
    """
    with open(file, "rb", opener=open_followed) as opened:
        if who := writers(os.fstat(opened.fileno())):
            raise ValueError(f"{file} can be written by {who}")
        check_replaceable(file)
        check_owners(file)
        content = opened.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{file} is larger than {MAX_FILE_BYTES:,} bytes")
    return content.removeprefix(BOM_UTF8)
