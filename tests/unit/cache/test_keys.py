"""Cache keys are equal exactly when the answer must be."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from cache.keys import cache_key
from core.types import VERSIONS, Version

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
REVISIONS = st.text("0123456789abcdef", min_size=12, max_size=12)
INPUTS = st.tuples(st.sampled_from(VERSIONS), REVISIONS, TEXTS)


def test_the_form_is_stable() -> None:
    # Changing it empties every cache in production: raise SCHEMA_VERSION when it must change.
    assert cache_key("v1", "5f0c6f1d2a9b", "good") == (
        "sentiment:2:v1:5f0c6f1d2a9b:"
        "770e607624d689265ca6c44884d0807d9b054d23c473c106c72be9de08b7376c"
    )


@given(INPUTS, INPUTS)
def test_different_inputs_have_different_keys(
    one: tuple[Version, str, str], other: tuple[Version, str, str]
) -> None:
    assume(one != other)
    assert cache_key(*one) != cache_key(*other)


@given(INPUTS)
def test_a_key_is_short_and_printable(one: tuple[Version, str, str]) -> None:
    key = cache_key(*one)
    assert key.isascii()
    assert key.isprintable()
    assert len(key) < 120
    assert key == cache_key(*one)
