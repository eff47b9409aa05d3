"""Cache keys: two keys are equal exactly if their answers must be equal."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from cache.keys import cache_key
from core.types import VERSIONS, Version

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
REVISIONS = st.text("0123456789abcdef", min_size=12, max_size=12)
INPUTS = st.tuples(st.sampled_from(VERSIONS), REVISIONS, TEXTS)


def test_format_of_a_key_is_stable() -> None:
    # Another format empties every cache in production; raise SCHEMA_VERSION if it must change.
    assert cache_key("v1", "5f0c6f1d2a9b", "good") == (
        "sentiment:2:v1:5f0c6f1d2a9b:"
        "770e607624d689265ca6c44884d0807d9b054d23c473c106c72be9de08b7376c"
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
