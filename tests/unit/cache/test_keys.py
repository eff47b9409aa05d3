"""Cache keys: two keys are equal exactly if their answers must be equal."""

from __future__ import annotations

import hashlib

from hypothesis import assume, given
from hypothesis import strategies as st

from cache.keys import CacheKeys, digests_of, hash_of
from core.keyed_hash import keyed_hash, text_digest
from core.types import VERSIONS, Version

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
REVISIONS = st.text("0123456789abcdef", min_size=12, max_size=12)
CACHE_KEYS = CacheKeys(bytes(range(32)))
cache_key = CACHE_KEYS.key
INPUTS = st.tuples(st.sampled_from(VERSIONS), REVISIONS, TEXTS)


def test_format_of_a_key_is_stable() -> None:
    # Another format empties every cache in production; raise SCHEMA_VERSION if it must change.
    assert cache_key("v1", "5f0c6f1d2a9b", "good") == (
        "sentiment:3:v1:5f0c6f1d2a9b:"
        "e75db85c3a3a31c518f751ff9d5fe5fbd36811c0df546b54aebb49fb4f70aad9"
    )


@given(INPUTS, INPUTS)
def test_different_inputs_have_different_keys(
    first: tuple[Version, str, str], second: tuple[Version, str, str]
) -> None:
    assume(first != second)
    assert cache_key(*first) != cache_key(*second)


@given(INPUTS)
def test_key_is_short_and_printable(inputs: tuple[Version, str, str]) -> None:
    key = cache_key(*inputs)
    assert key.isascii()
    assert key.isprintable()
    assert len(key) < 120
    assert key == cache_key(*inputs)


@given(INPUTS)
def test_key_hides_its_text_from_those_without_the_secret(inputs: tuple[Version, str, str]) -> None:
    assert hashlib.sha256(inputs[2].encode()).hexdigest() not in cache_key(*inputs)
    assert CacheKeys().key(*inputs) != cache_key(*inputs) != CacheKeys(bytes(32)).key(*inputs)


@given(INPUTS)
def test_key_tells_the_hash_of_its_text(inputs: tuple[Version, str, str]) -> None:
    expected = keyed_hash(CACHE_KEYS.secret, text_digest(inputs[2])).hex()
    assert hash_of(cache_key(*inputs)) == expected
    assert hash_of(cache_key(*inputs, "windows")) == expected


def test_hashes_in_keys_of_the_release_before_are_those_of_the_text() -> None:
    expected = [hashlib.sha256(text).digest() for text in (b"good", b"windows\0good")]
    assert digests_of("good") == expected
    assert hash_of(f"sentiment:2:v1:r1:{expected[1].hex()}") == expected[1].hex()
