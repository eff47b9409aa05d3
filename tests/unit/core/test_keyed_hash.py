"""The HMAC of the log's hashes is the one of RFC 2104."""

from __future__ import annotations

import hmac

from hypothesis import example, given
from hypothesis import strategies as st

from core.keyed_hash import keyed_hash, pads, secret_of

SECRETS = st.binary(max_size=200)


@given(SECRETS, st.binary(max_size=200))
@example(b"", b"")
@example(b"k" * 64, b"of the length of a block")
@example(b"k" * 65, b"longer than a block")
# RFC 4231, test cases 1 and 6.
@example(b"\x0b" * 20, b"Hi There")
@example(b"\xaa" * 131, b"Test Using Larger Than Block-Size Key - Hash Key First")
def test_hash_equals_that_of_the_standard_library(secret: bytes, digest: bytes) -> None:
    assert keyed_hash(secret, digest) == hmac.digest(secret, digest, "sha256")


@given(st.binary(min_size=1, max_size=64), st.binary())
def test_secret_of_a_pad_makes_the_same_hashes(secret: bytes, digest: bytes) -> None:
    inner, _ = pads(secret)
    assert keyed_hash(secret_of(inner), digest) == keyed_hash(secret, digest)
