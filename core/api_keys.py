"""API keys: what the setting says of them, and how a new one is made."""

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
    """Who may ask for what; of the key itself only its SHA-256 is known.

    A key is 256 random bits, which nobody can find by trying, so a plain hash is as good as a slow
    one, and costs a request a microsecond.
    """

    name: str
    scopes: frozenset[KeyScope]
    sha256: str

    def allows(self, scope: KeyScope) -> bool:
        return scope in self.scopes or "admin" in self.scopes

    def entry(self) -> str:
        """As it is written in the setting."""
        return f"{self.name}:{'+'.join(sorted(self.scopes))}:{self.sha256}"


def parse_api_keys(text: str) -> tuple[ApiKey, ...]:
    """The keys of a setting such as `EXAMPLE`; of one name there may be two while they change.

    Raises:
        ValueError: it is written otherwise; says how, without any of it.
    """
    return tuple(_parse(entry.strip()) for entry in text.split(",") if entry.strip())


def _parse(entry: str) -> ApiKey:
    match = _ENTRY.fullmatch(entry)
    scopes = match["scopes"].split("+") if match else []
    known = frozenset(scope for scope in KEY_SCOPES if scope in scopes)
    if match is None or len(known) != len(scopes):
        raise ValueError(f"write it as {EXAMPLE}; scopes are {', '.join(KEY_SCOPES)}")
    return ApiKey(match["name"], known, match["sha256"].lower())


def make_api_key(name: str, scopes: Collection[KeyScope]) -> tuple[str, ApiKey]:
    """A new key, as its owner sends it, and what is kept of it."""
    key = token_urlsafe(KEY_BYTES)
    return key, ApiKey(name, frozenset(scopes), hash_of(key))


def hash_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def find_key(keys: Sequence[ApiKey], sent: str) -> ApiKey | None:
    """The one that was sent, compared with each of them in the same time."""
    sha256 = hash_of(sent)
    found = None
    for key in keys:
        if hmac.compare_digest(key.sha256, sha256):
            found = key
    return found
