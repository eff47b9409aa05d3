"""Cache keys: two keys are equal exactly if their answers must be equal.

A key does not tell its text: it holds an HMAC, by the same key as the prediction log, so that the
row of a prediction leads to its cached answers when a person asks for the deletion of both.
"""

from __future__ import annotations

from secrets import token_bytes

from core.keyed_hash import keyed_hash, text_digest
from core.types import LongText, Version

# Part of every key; raise it when the meaning or the format of a cached value changes.
SCHEMA_VERSION = 3
PREFIX = "sentiment:"
# At the end of the keys of answers to all windows of a text.
_WINDOWS = "-windows"


class CacheKeys:
    """Makes the keys of texts, by a secret that all processes share once they know it."""

    def __init__(self, secret: bytes | None = None) -> None:
        """Without the secret, which comes with PostgreSQL, a process shares no answers."""
        self.secret = secret or token_bytes(32)

    def key(
        self, version: Version, revision: str, text: str, long_text: LongText = "truncate"
    ) -> str:
        """The key of `text`, exactly as the model sees it, for these weights.

        Version and revision contain no colon and the hash has a fixed length, so two different
        inputs share a key only in case of a collision of SHA-256. The windows of a text have
        another answer than its beginning. `refuse` has the answers of `truncate`, to texts that
        are short enough.
        """
        hash_ = keyed_hash(self.secret, text_digest(text)).hex()
        key = f"{PREFIX}{SCHEMA_VERSION}:{version}:{revision}:{hash_}"
        return key + _WINDOWS if long_text == "windows" else key


def digests_of(text: str) -> list[bytes]:
    """What releases before `SCHEMA_VERSION` 3 had in their keys: nobody's HMAC."""
    return [text_digest(text), text_digest(f"windows\0{text}")]


def hash_of(key: str) -> str:
    """The hash of the text, in hexadecimal digits, in a key of this or an earlier release."""
    return key.rpartition(":")[2].removesuffix(_WINDOWS)


def revision_of(key: str) -> str:
    """The revision in a key that `CacheKeys` made."""
    return key.split(":")[-2]
