"""LOG_HASH_KEY and LOG_HASH_KEY_FILE: the keys that the log's hashes have."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from core.settings import InvalidSetting, SettingsError
from tests.unit.core.settings_of import settings

KEYS = "a" * 32, "b" * 40


@pytest.mark.parametrize("text", [",".join(KEYS), " , ".join(KEYS), "\n".join([*KEYS, ""])])
def test_hash_keys_are_read_from_the_setting_and_from_a_file(text: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    expected = tuple(key.encode() for key in KEYS)
    assert settings(log_hash_key=text).hash_keys() == expected
    assert settings(log_hash_key_file=str(file)).hash_keys() == expected
    assert settings().hash_keys() == ()


@pytest.mark.parametrize(
    "text", ["", "short", "a" * 31, "a " * 20, "\u00e4" * 40, ",".join(KEYS[:1] * 2)]
)
def test_hash_keys_that_protect_nothing_are_refused_and_not_shown(
    text: str, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(ValidationError) as caught:
        settings(log_hash_key=text)
    assert text not in str(InvalidSetting(caught.value)) or not text
    with pytest.raises(SettingsError, match="LOG_HASH_KEY_FILE=") as refused:
        settings(log_hash_key_file=str(file)).hash_keys()
    assert text not in str(refused.value) or not text


def test_hash_keys_in_two_places_or_in_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="are both set: unset one"):
        settings(log_hash_key=KEYS[0], log_hash_key_file=str(tmp_path / "keys")).hash_keys()
    with pytest.raises(SettingsError, match="No such file or directory"):
        settings(log_hash_key_file=str(tmp_path / "keys")).hash_keys()
    file = tmp_path / "keys"
    file.write_text(KEYS[0])
    file.chmod(0o666)
    with pytest.raises(SettingsError, match="can be written by every user"):
        settings(log_hash_key_file=str(file)).hash_keys()
