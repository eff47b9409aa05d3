"""Cache keys: two keys are equal exactly if their answers must be equal."""

from __future__ import annotations

import hashlib

from core.types import LongText, Version

# Part of every key; raise it when the meaning or the format of a cached value changes.
SCHEMA_VERSION = 2
PREFIX = "sentiment:"


def cache_key(version: Version, revision: str, text: str, long_text: LongText = "truncate") -> str:
    """The key of `text`, exactly as the model sees it, for these weights.

    Version and revision contain no colon and the digest has a fixed length, so two different inputs
    share a key only in case of a SHA-256 collision. The windows of a text have another answer than
    its beginning. `refuse` has the answers of `truncate`, to texts that are short enough. No text
    contains the NUL character.
    """
    keyed = f"windows\0{text}" if long_text == "windows" else text
    digest = hashlib.sha256(keyed.encode()).hexdigest()
    return f"{PREFIX}{SCHEMA_VERSION}:{version}:{revision}:{digest}"


def revision_of(key: str) -> str:
    """The revision in a key that `cache_key` made."""
    return key.split(":")[-2]
