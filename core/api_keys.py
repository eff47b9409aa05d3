"""API keys: parsing a setting or a file, making a new key, finding the key of a request."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from secrets import token_urlsafe
from typing import Literal, get_args

from core.rate_limits import LIMIT_NAMES, LimitName, check_rate

KeyScope = Literal["predict", "feedback", "analytics", "admin"]

KEY_SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)
EXAMPLE = "shop:predict:<sha256>,ops:predict+analytics:<sha256>:predict=1000/minute"
KEY_BYTES = 32
_ENTRY = re.compile(
    r"(?P<name>[^:,]+):(?P<scopes>[a-z+]+):(?P<sha256>[0-9a-fA-F]{64})(:(?P<limits>[^:,]+))?"
)
_LIMIT = re.compile(r"(?P<name>[a-z]+)=(?P<rate>\d+/\d*[a-z]+|off)")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The owner, scopes and own rate limits of a key, and the SHA-256 of the key itself.

    A key is 256 random bits, too many to guess, so a plain hash is as safe as a slow one and costs
    a request only a microsecond.
    """

    name: str
    scopes: frozenset[KeyScope]
    sha256: str
    limits: Mapping[LimitName, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """What names the key in public: the beginning of its hash gives nothing away."""
        return self.sha256[:12]

    def allows(self, scope: KeyScope) -> bool:
        return scope in self.scopes or "admin" in self.scopes

    def entry(self) -> str:
        """The key as an entry of the setting, and as a line of the file."""
        limits = "+".join(f"{name}={rate}" for name, rate in self.limits.items())
        entry = f"{self.name}:{'+'.join(sorted(self.scopes))}:{self.sha256}"
        return f"{entry}:{limits}" if limits else entry


def parse_api_keys(text: str) -> tuple[ApiKey, ...]:
    """Parse a setting such as `EXAMPLE`; a name may have two keys, so that they can be rotated.

    Raises:
        ValueError: the setting has another form; the message does not quote it.
    """
    keys: dict[str, ApiKey] = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        _add(_parse(entry), keys)
    if text and not keys:
        # Variables that were to fill it are empty: without keys, everybody would be let in.
        raise ValueError("has no entry; unset it to do without keys")
    return tuple(keys.values())


def parse_key_file(text: str) -> tuple[tuple[ApiKey, ...], list[str]]:
    """Parse a file with one entry a line; returns the keys, and a sentence for each invalid line.

    Empty lines and those that begin with `#` are left out. Of two lines about one key the first
    counts.
    """
    keys: dict[str, ApiKey] = {}
    faults = []
    for number, line in enumerate(text.splitlines(), start=1):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            try:
                _add(_parse(entry), keys)
            except ValueError as error:
                faults.append(f"line {number} {error}")
    return tuple(keys.values()), faults


def _add(key: ApiKey, keys: dict[str, ApiKey]) -> None:
    """Add a key to those of the entries before it, by their hashes.

    Raises:
        ValueError: one of them is the same, and may have other scopes.
    """
    if other := keys.get(key.sha256):
        raise ValueError(
            f"must have another key: {key.name} and {other.name} have the same, {key.id}"
        )
    keys[key.sha256] = key


def parse_limits(text: str) -> dict[LimitName, str]:
    """Parse rates such as `predict=1000/minute+batch=off`.

    Raises:
        ValueError: they have another form.
    """
    limits: dict[LimitName, str] = {}
    for part in text.split("+"):
        match = _LIMIT.fullmatch(part)
        name = next((known for known in LIMIT_NAMES if match and match["name"] == known), None)
        if match is None or name is None or name in limits:
            raise ValueError(
                "must have limits such as predict=1000/minute+batch=off; limits are "
                f"{', '.join(LIMIT_NAMES)}"
            )
        try:
            limits[name] = check_rate(match["rate"])
        except ValueError as error:
            raise ValueError(f"has a rate of {name} that {error}") from error
    return limits


def _parse(entry: str) -> ApiKey:
    match = _ENTRY.fullmatch(entry)
    scopes = match["scopes"].split("+") if match else []
    known = frozenset(scope for scope in KEY_SCOPES if scope in scopes)
    if match is None or len(known) != len(scopes):
        raise ValueError(f"must have the form {EXAMPLE}; scopes are {', '.join(KEY_SCOPES)}")
    try:
        limits = parse_limits(match["limits"]) if match["limits"] else {}
    except ValueError as error:
        raise ValueError(f"must have the form {EXAMPLE}; it {error}") from None
    return ApiKey(match["name"], known, match["sha256"].lower(), limits)


def make_api_key(
    name: str, scopes: Collection[KeyScope], limits: Mapping[LimitName, str] | None = None
) -> tuple[str, ApiKey]:
    """Make a new key: the text that its owner sends, and the entry for the setting."""
    key = token_urlsafe(KEY_BYTES)
    return key, ApiKey(name, frozenset(scopes), hash_key(key), limits or {})


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
