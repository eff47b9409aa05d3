"""Gives the cache the newest key of the log's hashes, so that all processes make the same keys."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.hash_keys import HashKeys
from cache.keys import CacheKeys
from core.atomic_file import write_atomically
from core.background import Background
from core.errors import describe_error
from core.postgres import DATABASE_FAILURES
from core.private_files import open_regular

logger = logging.getLogger("bentoml.sentiment.cache")

# A copy of PostgreSQL's key: a process that starts while PostgreSQL is away shares the cache.
FILE = "cache.key"
SECRET_BYTES = 32
# A new key empties the cache, and processes share nothing until all have it.
POLL_SECONDS = 5.0
RETRY_SECONDS = 0.5


class CacheSecret(Background):
    """Sets the secret of `CacheKeys`, and follows a change."""

    def __init__(
        self, keys: CacheKeys, engine: AsyncEngine, configured: Sequence[bytes], file: Path
    ) -> None:
        """`configured`: the keys of LOG_HASH_KEY, newest first."""
        self._keys = keys
        self._engine = engine
        self._hashes = HashKeys(configured)
        self._is_configured = bool(configured)
        self._file = file
        if configured:
            keys.secret = configured[0]
        else:
            with suppress(OSError), open(file, "rb", opener=open_regular) as opened:
                secret = opened.read(SECRET_BYTES)
                if len(secret) == SECRET_BYTES:
                    keys.secret = secret

    async def _run(self) -> None:
        while not self._is_configured:
            try:
                await self._hashes.refresh(self._engine)
            except DATABASE_FAILURES:
                await asyncio.sleep(RETRY_SECONDS)  # others log that PostgreSQL is away
                continue
            secret = self._hashes.current_secret
            if secret != self._keys.secret:
                self._keys.secret = secret
                try:
                    await asyncio.to_thread(write_atomically, self._file, secret)
                except OSError as error:
                    logger.warning("%s cannot be written: %s", self._file, describe_error(error))
            await asyncio.sleep(POLL_SECONDS)
        await asyncio.Event().wait()  # the setting changes with a start
