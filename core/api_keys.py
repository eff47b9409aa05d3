"""API keys: parsing the setting, making a new key, finding the key of a request."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from secrets import token_urlsafe
from typing import Literal, get_args

KeyScope = Literal["predict", "analytics", "admin"]

KEY_SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)
EXAMPLE = "shop:predict:<sha256>,ops:predict+analytics:<sha256>"
KEY_BYTES = 32
_ENTRY = re.compile(r"(?P<name>[^:,]+):(?P<scopes>[a-z+]+):(?P<sha256>[0-9a-fA-F]{64})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The owner and the scopes of a key, and the SHA-256 of the key itself.

    A key is 256 random bits, too many to guess, so a plain hash is as safe as a slow one and costs
    a request only a microsecond.
    """

    name: str
    scopes: frozenset[KeyScope]
    sha256: str

    def allows(self, scope: KeyScope) -> bool:
        return scope in self.scopes or "admin" in self.scopes

    def entry(self) -> str:
        """The key as an entry of the setting."""
        return f"{self.name}:{'+'.join(sorted(self.scopes))}:{self.sha256}"


def parse_api_keys(text: str) -> tuple[ApiKey, ...]:
    """Parse a setting such as `EXAMPLE`; a name may have two keys, so that they can be rotated.

    Raises:
        ValueError: the setting has another form; the message does not quote it.
    """
    return tuple(_parse(entry.strip()) for entry in text.split(",") if entry.strip())


def _parse(entry: str) -> ApiKey:
    match = _ENTRY.fullmatch(entry)
    scopes = match["scopes"].split("+") if match else []
    known = frozenset(scope for scope in KEY_SCOPES if scope in scopes)
    if match is None or len(known) != len(scopes):
        raise ValueError(f"must have the form {EXAMPLE}; scopes are {', '.join(KEY_SCOPES)}")
    return ApiKey(match["name"], known, match["sha256"].lower())


def make_api_key(name: str, scopes: Collection[KeyScope]) -> tuple[str, ApiKey]:
    """Make a new key: the text that its owner sends, and the entry for the setting."""
    key = token_urlsafe(KEY_BYTES)
    return key, ApiKey(name, frozenset(scopes), hash_key(key))


def hash_key(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def find_key(keys: Sequence[ApiKey], sent: str) -> ApiKey | None:
    """Find the key that a client sent; every comparison takes the same time."""
    sha256 = hash_key(sent)
    found = None
    for key in keys:
        if hmac.compare_digest(key.sha256, sha256):
            found = key
    return found
