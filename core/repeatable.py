"""Ids of a request that its client may repeat: every try of it makes the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from core.types import Version
from core.uuid7 import new_id


@dataclass(frozen=True, slots=True)
class Repeatable:
    """A request with an Idempotency-Key: the time of its first try, and the hash of its key.

    The prediction log stores an id once. So a second try is counted once too, even if the process
    of the first one died between the log and the reply. `version` is the one that an earlier try
    was assigned to, and may be in the log with; None: unknown. `keep_version` notes the version of
    this try for later ones; it has to be called before the log may have it.
    """

    at: datetime
    key: bytes
    version: Version | None = None
    keep_version: Callable[[Version], Awaitable[None]] | None = field(default=None, compare=False)

    def assigned(self, version: Version) -> Repeatable:
        """The same of a try that is assigned to `version`, unless an earlier one was already."""
        return self if self.version else replace(self, version=version)

    def ids(self, name: str, count: int) -> list[UUID]:
        """The `count` ids of the request's part `name`, in order."""
        return sorted(new_id(self.at, self._random_bits(f"{name} {i}")) for i in range(count))

    def secret(self, name: str) -> bytes:
        """32 bytes that only this request has."""
        return hashlib.sha256(b"%s %s" % (self.key, name.encode())).digest()

    def _random_bits(self, name: str) -> Callable[[int], int]:
        bits = int.from_bytes(self.secret(name))
        return lambda count: bits >> 256 - count
