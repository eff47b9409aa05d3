"""Which version answers whom: a hash decides, so that it is the same one as long as shares stay."""

from __future__ import annotations

import hashlib
from secrets import token_bytes
from typing import NamedTuple

from core.types import Split, Version
from rollout.policy import RolloutPolicy

_BUCKETS = 10_000


class Bucket(NamedTuple):
    """A version for a subject, and what it was dealt by; None for one with an override."""

    version: Version
    subject_key: bytes
    split: Split | None


def assign_subject(policy: RolloutPolicy, subject: str | None) -> Bucket:
    """Of /predict/ab; dealt anew without a subject. Overridden subjects are in no experiment."""
    split = Split(policy.salt, policy.ab_weights.v2)
    key = subject_key(subject, split.salt)
    if subject is not None and (chosen := policy.overrides.get(subject)) is not None:
        return Bucket(chosen, key, None)
    return Bucket(deal(key, split.v2_percent), key, split)


def assign_text(policy: RolloutPolicy, text: str) -> Version:
    """Of /predict without a version: a text stays with its version, whose answer is cached."""
    if policy.predict_weights is None:
        return policy.champion
    return deal(_text_key(text, policy.salt), policy.predict_weights.v2)


def is_shadowed(policy: RolloutPolicy, text: str) -> bool:
    """Whether the challenger is asked about a text of /predict too."""
    share = policy.shadow_percent
    return share > 0 and _bucket(_text_key(text, f"shadow {policy.salt}")) < _buckets(share)


def subject_key(subject: str | None, salt: str) -> bytes:
    """Stands for a subject in one test, and does not tell who it is; random without a subject."""
    if subject is None:
        return token_bytes(32)
    return hashlib.sha256(f"{salt}\x00{subject}".encode()).digest()


def deal(key: bytes, v2_percent: float) -> Version:
    """The version of a subject: the same one as long as key and split stay.

    The key's bucket is a hash, so a changed split moves only the buckets between the two marks.
    """
    return "v2" if _bucket(key) < _buckets(v2_percent) else "v1"


def _bucket(key: bytes) -> int:
    return int.from_bytes(key[:8]) % _BUCKETS


def _buckets(percent: float) -> float:
    return percent * _BUCKETS / 100


def _text_key(text: str, salt: str) -> bytes:
    return hashlib.sha256(f"{salt}\x01{text}".encode()).digest()
