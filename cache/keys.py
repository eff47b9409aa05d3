"""Cache keys: two keys are equal exactly if their answers must be equal.

A key does not tell its text: it holds an HMAC, by the same key as the prediction log, so that the
row of a prediction leads to its cached answer when a person asks for the deletion of both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from secrets import token_bytes

from core.keyed_hash import keyed_hash, text_digest
from core.types import Version

# Part of every key; raise it when the meaning or the format of a cached value changes.
SCHEMA_VERSION = 3
PREFIX = "sentiment:"


class CacheKeys:
    """Makes the keys of texts, by a secret that all processes share once they know it."""

    def __init__(self, secret: bytes | None = None) -> None:
        """Without the secret, which comes with PostgreSQL, a process shares no answers."""
        self.secret = secret or token_bytes(32)

    def key(self, version: Version, revision: str, text: str) -> str:
        """The key of `text`, exactly as the model sees it, for these weights.

        Version and revision contain no colon and the hash has a fixed length, so two different
        inputs share a key only in case of a collision of SHA-256.
        """
        return key_of_hash(version, revision, keyed_hash(self.secret, text_digest(text)))


def key_of_hash(version: str, revision: str, hash_: bytes) -> str:
    """The key of a text whose keyed hash is known."""
    return f"{PREFIX}{SCHEMA_VERSION}:{version}:{revision}:{hash_.hex()}"


def keys_of(
    models: Iterable[tuple[str, str]], hashes: Collection[bytes], text: str | None
) -> list[str]:
    """The keys of all answers to texts, by the versions and revisions of models.

    With the `text` itself, also the key that releases before `SCHEMA_VERSION` 3 made.
    """
    return [
        key
        for version, revision in models
        for key in (
            *(key_of_hash(version, revision, hash_) for hash_ in hashes),
            *(
                f"{PREFIX}2:{version}:{revision}:{digest.hex()}"
                for digest in ([] if text is None else [text_digest(text)])
            ),
        )
    ]


def revision_of(key: str) -> str:
    """The revision in a key that `CacheKeys` made."""
    return key.split(":")[-2]
