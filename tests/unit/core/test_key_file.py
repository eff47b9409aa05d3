"""A file of keys counts only if no other user of the machine can have put it there."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.api_keys import make_api_key
from core.key_ring import KeyRing, read_key_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "keys"
    made.mkdir()
    return made


def key_file(folder: Path, folder_mode: int) -> Path:
    file = folder / "keys"
    file.write_bytes(b"# none\n")
    folder.chmod(folder_mode)
    return file


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o2775, 0o1777])
def test_file_that_only_its_owner_can_replace_is_read(folder: Path, mode: int) -> None:
    assert read_key_file(key_file(folder, mode)) == b"# none\n"


def test_mark_before_the_file_is_no_part_of_its_first_name(folder: Path) -> None:
    _, shop = make_api_key("shop", ["predict"])
    file = key_file(folder, 0o755)
    file.write_text(f"\ufeff{shop.entry()}\n", encoding="utf-8")
    keys = KeyRing((), file)
    for _ in range(2):
        keys.refresh(file)
    assert list(keys.keys) == [shop]


@pytest.mark.parametrize("mode", [0o777, 0o707, 0o2777])
def test_file_in_a_folder_of_everybody_is_refused(folder: Path, mode: int) -> None:
    with pytest.raises(ValueError, match=r"lets every user of this machine replace keys$"):
        read_key_file(key_file(folder, mode))


def test_mounted_secret_of_kubernetes_is_read(folder: Path) -> None:
    """The folder is everybody's with the sticky bit; links lead to a folder that is replaced."""
    version = folder / "..2026_11_27"
    version.mkdir(mode=0o755)
    key_file(version, 0o755)
    (folder / "..data").symlink_to(version.name)
    (folder / "keys").symlink_to("..data/keys")
    folder.chmod(0o1777)
    assert read_key_file(folder / "keys") == b"# none\n"


def test_link_into_a_folder_of_everybody_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(key_file(folder, 0o777))
    with pytest.raises(ValueError, match="replace"):
        read_key_file(tmp_path / "link")


def test_key_of_the_setting_gets_no_scope_from_the_file(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, shop = make_api_key("shop", ["predict"])
    _, ops = make_api_key("ops", ["analytics"])
    file = key_file(folder, 0o755)
    file.write_text(f"shop:admin:{shop.sha256}\n{ops.entry()}\n", encoding="utf-8")
    keys = KeyRing([shop], file)
    for _ in range(2):
        keys.refresh(file)
    assert list(keys.keys) == [shop, ops]
    assert "shop has the same key as shop of API_KEYS" in caplog.text
