"""Assignment of subjects and texts to versions by a hash, stable while the shares stay."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from secrets import token_bytes
from typing import NamedTuple

from core.keyed_hash import subject_digest
from core.types import ARM_GROUPS, Split, Version
from rollout.policy import RolloutPolicy

_BUCKETS = 10_000


class Bucket(NamedTuple):
    """The version of a subject, and the split that chose it; None if an override did."""

    version: Version
    subject_key: bytes
    split: Split | None


def new_subject_key() -> bytes:
    """The key of a request without a subject."""
    return token_bytes(32)


def assign_subject(
    policy: RolloutPolicy,
    subject: str | None,
    new_key: Callable[[], bytes] = new_subject_key,
    *,
    is_trial: bool = False,
) -> Bucket:
    """Assign a subject of /predict/ab; every request without a subject is assigned anew.

    `new_key` gives its key. A subject with an override takes part in no experiment. A trial does
    not tell the version of the subject: who knew it before could send those of one version alone,
    and ruin the test.
    """
    split = Split(_trial_salt(policy) if is_trial else policy.salt, policy.ab_weights.v2)
    key = new_key() if subject is None else subject_digest(subject, split.salt)
    if subject is not None and (override := policy.overrides.get(subject)) is not None:
        return Bucket(override, key, None)
    return Bucket(assign(key, split.v2_percent), key, split)


def assign_text(policy: RolloutPolicy, text: str, *, is_trial: bool = False) -> Version:
    """Assign a text of /predict without a version; the same text stays, so the cache can hit.

    A trial does not tell the version of the text, as `assign_subject` does not.
    """
    if policy.predict_weights is None:
        return policy.champion
    salt = _trial_salt(policy) if is_trial else policy.salt
    return assign(_text_key(text, salt), policy.predict_weights.v2)


def is_shadowed(policy: RolloutPolicy, text: str) -> bool:
    """Whether the challenger classifies this text of /predict too."""
    share = policy.shadow_percent
    return share > 0 and _is_below(share, _text_key(text, f"shadow {policy.salt}"))


def arm_group(key: bytes) -> int:
    """The group of a key, by other bits than its version: see `stats.exceedance.GROUPS`."""
    return key[-1] % ARM_GROUPS


def text_group(policy: RolloutPolicy, text: str) -> int:
    """The group of a text of /predict or of shadow traffic."""
    return arm_group(_text_key(text, policy.salt))


def assign(key: bytes, v2_percent: float) -> Version:
    """Assign a key to a version, always the same one while `v2_percent` stays.

    A changed split moves only the buckets between the old mark and the new one.
    """
    return "v2" if _is_below(v2_percent, key) else "v1"


def _is_below(percent: float, key: bytes) -> bool:
    """Whether the bucket of `key` is one of the first `percent` of all buckets."""
    return int.from_bytes(key[:8]) % _BUCKETS < percent * _BUCKETS / 100


def _trial_salt(policy: RolloutPolicy) -> str:
    return f"trial {policy.salt}"


def _text_key(text: str, salt: str) -> bytes:
    return hashlib.sha256(f"{salt}\x01{text}".encode()).digest()
