"""API keys: making, parsing and finding them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.api_keys import KEY_SCOPES, ApiKey, find_key, hash_key, make_api_key, parse_api_keys
from core.paths import ROOT

names = st.text(
    st.characters(codec="ascii", exclude_characters=":,+", categories=["L", "N"]), min_size=1
)
scopes = st.frozensets(st.sampled_from(KEY_SCOPES), min_size=1)


@given(st.lists(st.tuples(names, scopes), max_size=4))
def test_new_keys_are_parsed_and_found(owners: list[tuple[str, frozenset[str]]]) -> None:
    pairs = [make_api_key(name, chosen) for name, chosen in owners]  # type: ignore[arg-type]
    keys = parse_api_keys(", ".join(key.entry() for _, key in pairs))
    assert keys == tuple(key for _, key in pairs)
    for sent, key in pairs:
        assert find_key(keys, sent) == key
        assert find_key(keys, sent[:-1]) is None
        assert sent not in repr(keys)


@pytest.mark.parametrize(
    "text",
    [
        "shop", "shop:predict", "shop:predict:abc", f":predict:{'0' * 64}",
        f"shop::{'0' * 64}", f"shop:all:{'0' * 64}", f"shop:predict+all:{'0' * 64}",
        f"shop:predict+predict:{'0' * 64}", f"shop:predict:{'0' * 62}",
        f"shop:predict:{'0' * 64}:x", f"shop:predict:{'g' * 64}",
    ],
)  # fmt: skip
def test_invalid_setting_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must have the form shop:predict:<sha256>") as caught:
        parse_api_keys(text)
    assert "0000" not in str(caught.value)


def test_admin_scope_allows_every_scope() -> None:
    admin = ApiKey("root", frozenset({"admin"}), hash_key("a"))
    shop = ApiKey("shop", frozenset({"predict"}), hash_key("b"))
    assert [admin.allows(scope) for scope in KEY_SCOPES] == [True] * 3
    assert [scope for scope in KEY_SCOPES if shop.allows(scope)] == ["predict"]


def test_make_key_prints_the_key_and_its_entry() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "scripts.make_key", "shop", *("--scope", "predict"),
         *("--scope", "analytics")],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    key, entry = printed[4], printed[-1]
    [known] = parse_api_keys(entry)
    assert find_key([known], key) == known
    assert (known.name, known.scopes) == ("shop", frozenset({"predict", "analytics"}))


def test_make_key_refuses_invalid_names_and_scopes() -> None:
    for arguments in (["a:b"], ["shop", "--scope", "everything"]):
        refused = subprocess.run(
            [sys.executable, "-m", "scripts.make_key", *arguments],
            cwd=ROOT, check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert refused.returncode != 0
        assert "scopes are" in refused.stderr
