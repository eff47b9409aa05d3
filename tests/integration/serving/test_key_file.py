"""A start with a file of keys that cannot work ends with one line that names the fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.api_keys import make_api_key
from core.setting_checks import check_open
from core.settings import Settings
from serving.preflight import prepare_api


def start(folder: Path, file: Path) -> None:
    """As far as the check of the file; these databases need no start."""
    settings = Settings(
        data_folder=folder / "data",
        api_keys_file=file,
        database_url="postgresql://127.0.0.1:1/none",
        redis_url="redis://127.0.0.1:1/0",
    )
    prepare_api(settings, ("127.0.0.1", 1))


@pytest.mark.parametrize(
    ("text", "mode", "fault"),
    [
        ("shop:predict:123\n", 0o600, "line 1 must have the form"),
        ("", 0o666, "can be written by every user"),
        ("#" * (2 << 20), 0o600, "is larger than"),
    ],
)
def test_start_with_an_unusable_key_file_names_the_fault(
    tmp_path: Path, text: str, mode: int, fault: str
) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(SystemExit, match=fault) as caught:
        start(tmp_path, file)
    assert "\n" not in str(caught.value)


def test_start_without_the_key_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"API_KEYS_FILE: .* cannot be read \(No such file"):
        start(tmp_path, tmp_path / "absent")


def test_start_with_a_key_file_is_not_open(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(make_api_key("shop", ["predict"])[1].entry())
    settings = Settings(host="0.0.0.0", api_keys_file=file)
    assert not settings.is_open
    check_open(settings)
