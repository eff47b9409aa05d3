"""API keys: making, parsing and finding them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.api_keys import (
    KEY_SCOPES,
    ApiKey,
    find_key,
    hash_key,
    make_api_key,
    parse_api_keys,
    parse_key_file,
)
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


def test_key_has_the_limits_of_its_entry() -> None:
    text = f"shop:predict:{'0' * 64}:predict=1000/minute+batch=off"
    [key] = parse_api_keys(text)
    assert key.limits == {"predict": "1000/minute", "batch": "off"}
    assert key.entry() == text


@pytest.mark.parametrize(
    "limits",
    [
        "predict", "predict=", "predict=x", "predict=1", "predict=1/minute+predict=2/minute",
        "health=1/minute", "predict=1/fortnight", "predict=1/minute+", "predict=1/minute;2/hour",
    ],
)  # fmt: skip
def test_entry_with_other_limits_is_refused(limits: str) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_api_keys(f"shop:predict:{'0' * 64}:{limits}")


def test_invalid_line_of_a_file_is_named_and_the_others_count() -> None:
    lines = ["# the shop", f"shop:predict:{'0' * 64}", "", f"ops:everything:{'1' * 64}", " ", "x"]
    keys, faults = parse_key_file("\n".join(lines))
    assert [key.name for key in keys] == ["shop"]
    assert [fault.split(" must ")[0] for fault in faults] == ["line 4", "line 6"]
    assert "1111" not in "".join(faults)


def test_second_entry_of_a_key_is_refused_and_gives_it_no_scope() -> None:
    lines = [f"shop:predict:{'a' * 64}", f"ops:admin:{'A' * 64}", f"ops:admin:{'1' * 64}"]
    keys, faults = parse_key_file("\n".join(lines))
    assert [(key.name, key.sha256[0]) for key in keys] == [("shop", "a"), ("ops", "1")]
    assert faults == [f"line 2 must have another key: ops and shop have the same, {'a' * 12}"]
    with pytest.raises(ValueError, match="ops and shop have the same"):
        parse_api_keys(",".join(lines))


def test_admin_scope_allows_every_scope() -> None:
    admin = ApiKey("root", frozenset({"admin"}), hash_key("a"))
    shop = ApiKey("shop", frozenset({"predict"}), hash_key("b"))
    assert [admin.allows(scope) for scope in KEY_SCOPES] == [True] * 4
    assert [scope for scope in KEY_SCOPES if shop.allows(scope)] == ["predict"]


def test_make_key_prints_the_key_and_its_entry() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "scripts.make_key", "shop", *("--scope", "predict"),
         *("--scope", "analytics", "--limit", "predict=5/second", "--limit", "batch=off")],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    key, entry = printed[4], printed[-1]
    [known] = parse_api_keys(entry)
    assert find_key([known], key) == known
    assert (known.name, known.scopes) == ("shop", frozenset({"predict", "analytics"}))
    assert known.limits == {"predict": "5/second", "batch": "off"}


def test_make_key_refuses_invalid_names_and_scopes() -> None:
    for arguments, named in (
        (["a:b"], "a name must be"),
        (["shop", "--scope", "everything"], "for --scope: 'everything' is not known; scopes are"),
        (["shop", "--limit", "all=1/minute"], "for --limit: must have limits such as"),
        (["shop", "--limit", "batch=off", "--limit", "predict=9/min"], "rate of predict that must"),
    ):
        refused = subprocess.run(
            [sys.executable, "-m", "scripts.make_key", *arguments],
            cwd=ROOT, check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert refused.returncode != 0
        assert named in " ".join(refused.stderr.replace("│", " ").split())
