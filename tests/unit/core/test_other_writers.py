"""Which other users could write a file of secrets, or put their own in its place."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from core.other_writers import EVERYBODY, check_owners, check_replaceable, replacers, writers

SELF, NOBODY = os.geteuid(), 65_534
# A group that has another member than root and this user, and one that no user is in.
SHARED = next(user.pw_gid for user in pwd.getpwall() if user.pw_uid not in (0, SELF))
EMPTY = 4_123_456_789


def status(mode: int, owner: int = SELF, group: int = EMPTY) -> os.stat_result:
    return os.stat_result((mode, 1, 1, 1, owner, group, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("mode", "owner", "group", "who"),
    [
        (0o600, SELF, SHARED, None),
        (0o644, SELF, SHARED, None),
        (0o640, 0, SHARED, None),
        (0o660, SELF, EMPTY, None),  # a volume of Kubernetes
        (0o660, SELF, pwd.getpwuid(SELF).pw_gid, None),  # a group of the user's own
        (0o660, SELF, 0, None),
        (0o664, SELF, SHARED, f"users of group {grp.getgrgid(SHARED).gr_name}"),
        (0o2770, 0, SHARED, f"users of group {grp.getgrgid(SHARED).gr_name}"),
        (0o620, NOBODY, SHARED, f"users of group {grp.getgrgid(SHARED).gr_name}"),
        (0o602, SELF, EMPTY, EVERYBODY),
        (0o666, SELF, SHARED, EVERYBODY),
        (0o1777, SELF, SHARED, EVERYBODY),
    ],
)
def test_users_who_may_write_are_named(mode: int, owner: int, group: int, who: str | None) -> None:
    found = writers(status(mode, owner, group))
    # The owner may be the only member of the group that the machine has.
    assert found == who or (owner == NOBODY and found is None)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/b/c/keys").write_text("")
    return tmp_path


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o1777])
@pytest.mark.parametrize("folder", ["a", "a/b", "a/b/c"])
def test_file_below_closed_folders_is_ours(folders: Path, folder: str, mode: int) -> None:
    (folders / folder).chmod(mode)
    check_replaceable(folders / "a/b/c/keys")


@pytest.mark.parametrize("mode", [0o777, 0o757, 0o2777])
@pytest.mark.parametrize(
    ("folder", "path"),
    [
        ("a/b/c", "a/b/c/keys"),
        ("a/b", "a/b/c/keys"),  # c can be replaced whole
        ("a", "a/b/c/keys"),
        ("a", "a/b/c/../c/keys"),
        ("a/b/c", "link"),
        ("a/b", "link"),
        ("a/b/c", "linked/keys"),
        ("open", "open/again"),
        ("open", "twice"),
    ],
)
def test_folder_on_the_way_that_others_may_write_is_named(
    folders: Path, folder: str, path: str, mode: int
) -> None:
    (folders / "open").mkdir()
    (folders / "link").symlink_to("a/b/c/keys")
    (folders / "linked").symlink_to("a/b/c")
    (folders / "open/again").symlink_to("../link")
    (folders / "twice").symlink_to("open/again")
    (folders / folder).chmod(mode)
    with pytest.raises(ValueError, match=r"lets every user of this machine replace") as caught:
        check_replaceable(folders / path)
    named, _, _ = str(caught.value).partition(" lets ")
    assert Path(named).samefile(folders / folder)


def test_links_without_end_are_no_endless_loop(folders: Path) -> None:
    (folders / "ring").symlink_to("ring")
    with pytest.raises(OSError, match="symbolic links"):
        check_replaceable(folders / "ring")


def test_entry_that_another_user_made_in_a_sticky_folder_can_be_theirs(folders: Path) -> None:
    folders.chmod(0o1777)
    assert replacers(folders, NOBODY) == EVERYBODY
    assert replacers(folders, SELF) is None
    assert replacers(folders, 0) is None


# A user with an account on this machine, and one without, as of a bind mount in a container.
ANOTHER = next(user for user in pwd.getpwall() if user.pw_uid not in (0, SELF))
STRANGER = 4_123_456_789


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of others")
@pytest.mark.parametrize("owned", ["a/b/c/keys", "a/b/c", "a", "link", "linked"])
def test_file_or_folder_of_another_user_is_named(folders: Path, owned: str) -> None:
    (folders / "link").symlink_to("linked/keys")
    (folders / "linked").symlink_to("a/b/c")
    check_owners(folders / "link")
    os.chown(folders / owned, STRANGER, -1, follow_symlinks=False)
    check_owners(folders / "link")
    os.chown(folders / owned, ANOTHER.pw_uid, -1, follow_symlinks=False)
    with pytest.raises(ValueError, match=f"belongs to {ANOTHER.pw_name}, who can"):
        check_owners(folders / "link")
