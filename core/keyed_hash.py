"""Hashes of texts that nobody can guess without a key: an HMAC over the text's SHA-256."""

from __future__ import annotations

import hashlib
import hmac

HASH_BYTES = 32


def text_digest(text: str) -> bytes:
    """The SHA-256 of a text. A short text can be guessed from it: it is never stored."""
    return hashlib.sha256(text.encode()).digest()


def subject_digest(subject: str, salt: str) -> bytes:
    """A pseudonym of a subject for the tests of one salt; it chooses the subject's bucket too."""
    return hashlib.sha256(f"{salt}\x00{subject}".encode()).digest()


def keyed_hash(secret: bytes, digest: bytes) -> bytes:
    """HMAC-SHA256 (RFC 2104) of a digest."""
    return hmac.digest(secret, digest, "sha256")
