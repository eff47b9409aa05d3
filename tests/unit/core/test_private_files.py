"""What holds texts or secrets is its owner's alone, also where it was open before."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from core.atomic_file import write_atomically
from core.private_files import (
    MAX_OWN_BYTES,
    close_to_others,
    keep_entries,
    make_private,
    open_new,
    open_private,
    read_own,
)


@pytest.fixture(autouse=True)
def _open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_written_file_and_its_new_folder_are_private(tmp_path: Path) -> None:
    file = tmp_path / "models" / "v1.json"
    write_atomically(file, b"1")
    assert (mode(file), mode(file.parent)) == (0o600, 0o700)


@pytest.mark.parametrize("flags", ["ab", "wb"])
def test_file_that_was_open_is_private_once_it_is_opened_again(tmp_path: Path, flags: str) -> None:
    file = tmp_path / "file"
    file.touch(0o666)
    with open(file, flags, opener=open_private):
        assert mode(file) == 0o600


def test_link_is_not_followed(tmp_path: Path) -> None:
    """Another user of a shared folder may have put it there."""
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        open_private(str(tmp_path / "link"), os.O_WRONLY | os.O_TRUNC)
    with pytest.raises(OSError, match="symbolic links"):
        make_private(tmp_path / "link")
    assert target.read_text() == "precious"


@pytest.mark.parametrize("flags", ["ab", "wb"])
def test_second_name_that_others_may_have_given_is_not_written(tmp_path: Path, flags: str) -> None:
    """Without fs.protected_hardlinks anybody can give one to a file that they cannot even read."""
    target = tmp_path / "target"
    target.write_text("precious")
    target.chmod(0o644)
    for folder_mode, refused in ((0o777, True), (0o700, False)):
        shared = tmp_path / f"{folder_mode:o}"
        shared.mkdir(folder_mode)
        (shared / "log").hardlink_to(target)
        with pytest.raises(OSError, match="another name") if refused else nullcontext():
            open(shared / "log", flags, opener=open_private).close()
        assert (mode(target) == 0o644) == refused
        assert (target.read_text() == "precious") == (refused or flags == "ab")


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "device without an end"])
def test_state_is_read_from_a_file_alone_and_keeps_no_reader_waiting(
    tmp_path: Path, kind: str
) -> None:
    file, other = tmp_path / "state.json", tmp_path / "other"
    other.write_bytes(b"{}")
    match kind:
        case "pipe":
            os.mkfifo(file)
        case "link":
            file.symlink_to(other)
        case "folder":
            file.mkdir()
        case _:
            file = Path("/dev/zero")
    with pytest.raises(OSError, match=r"regular file|symbolic links|directory"):
        read_own(file)
    assert read_own(other) == b"{}"


def test_state_that_is_larger_than_any_of_ours_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    with file.open("wb") as opened:
        opened.truncate(MAX_OWN_BYTES + 1)
    with pytest.raises(OSError, match="more than 16,777,216 bytes"):
        read_own(file)


def test_new_file_takes_nothing_over_from_the_one_before(tmp_path: Path) -> None:
    target, new = tmp_path / "target", tmp_path / "new"
    target.write_text("precious")
    for make in (new.hardlink_to, new.symlink_to):
        make(target)
        with open_new(new) as file:
            file.write(b"content")
        assert (target.read_text(), new.read_text()) == ("precious", "content")
        new.unlink()


def test_file_that_another_user_has_made_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    if os.geteuid() == 0:
        file.touch()
        os.chown(file, 65_534, 65_534)
    else:
        file = Path(os.devnull)
    with pytest.raises(PermissionError, match="has made it"):
        make_private(file)


def test_folder_is_closed_with_all_in_it_and_nothing_that_it_links_to(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.touch(0o644)
    folder = tmp_path / "spool"
    (folder / "inner").mkdir(0o777, parents=True)
    folder.chmod(0o755)
    (folder / "inner" / "file").touch(0o664)
    (folder / "link").symlink_to(outside)
    close_to_others(folder)
    close_to_others(tmp_path / "absent")
    assert [mode(path) for path in (folder, folder / "inner", folder / "inner" / "file")] == [
        0o700,
        0o700,
        0o600,
    ]
    assert mode(outside) == 0o644


def test_mount_point_keeps_its_mode() -> None:
    mount_point = Path("/proc")
    before = mode(mount_point)
    close_to_others(mount_point)
    assert mode(mount_point) == before


@pytest.mark.parametrize(
    ("mode", "kept"),
    [(0o777, 0o755), (0o703, 0o701), (0o711, 0o711), (0o700, 0o700), (0o1777, 0o1777)],
)
def test_others_lose_the_right_to_replace_entries_unless_the_folder_is_a_shared_one(
    tmp_path: Path, mode: int, kept: int
) -> None:
    tmp_path.chmod(mode)
    keep_entries(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == kept


def test_folder_of_another_user_or_a_mount_point_keeps_its_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o777)
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "ismount", lambda _: True)
        keep_entries(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 65_534)
        keep_entries(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o777
