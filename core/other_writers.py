"""Tells which other users may write a file, or put another one in its place, as ssh does."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

EVERYBODY = "every user of this machine"
# As many as Linux follows.
MAX_LINKS = 40


def writers(status: os.stat_result) -> str | None:
    """Name the users, beside root, the owner and this process's, who may write; None: nobody."""
    if status.st_mode & stat.S_IWOTH:
        return EVERYBODY
    if status.st_mode & stat.S_IWGRP and _has_others(status.st_gid, status.st_uid):
        return f"users of group {_group_name(status.st_gid)}"
    return None


def replacers(folder: Path, owner: int) -> str | None:
    """Name the users who may put an entry of their own in the place of one that `owner` has.

    In a folder with the sticky bit, such as /tmp, users cannot replace the entries of others, but
    anyone can be the first to make one.
    """
    status = folder.stat()
    if status.st_mode & stat.S_ISVTX and owner in (0, os.geteuid()):
        return None
    return writers(status)


def check_owners(file: Path) -> None:
    """Check that a file, and every folder on the way to it, belongs to nobody else on this machine.

    The owner of a mount point decides about it, and a user without an account here is of another
    machine, as in a container.

    Raises:
        ValueError: another user owns one; the message names it and the user.
        OSError: it cannot be looked at.
    """
    for folder, entry in _ways(file):
        for path in (entry, folder):
            owner = path.lstat().st_uid
            if (name := _other_account(owner)) is not None and not os.path.ismount(path):
                raise ValueError(f"{path} belongs to {name}, who can change what {file} says")


def check_replaceable(file: Path) -> None:
    """Check every folder on the way to a file, and to what it links to.

    Raises:
        ValueError: other users may replace the file; the message names the folder and the users.
        OSError: a folder cannot be looked at.
    """
    for folder, entry in _ways(file):
        if who := replacers(folder, entry.lstat().st_uid):
            name = file.name if entry.name == file.name else f"{entry.name}, which leads to {file}"
            raise ValueError(f"{folder} lets {who} replace {name}")


def check_own_folder(folder: Path) -> None:
    """Check a folder that is written to without looking at what lies in it.

    Raises:
        ValueError: other users may make entries in it, or replace it; the message says who.
        OSError: a folder cannot be looked at.
    """
    if who := writers(folder.stat()):
        raise ValueError(f"{who} may write to {folder}")
    check_replaceable(folder)


def _ways(file: Path) -> Iterator[tuple[Path, Path]]:
    """Each folder with the entry in it that leads to the file.

    Kubernetes mounts a link to the file, which is in another folder.
    """
    path = Path(os.path.abspath(file))  # noqa: PTH100  `resolve` would follow the links
    for _ in range(MAX_LINKS):
        for entry, folder in pairwise((path, *path.parents)):
            yield folder, entry
        if not path.is_symlink():
            break
        path = Path(os.path.abspath(path.parent / path.readlink()))  # noqa: PTH100
    else:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(file))
    resolved = file.resolve()
    for entry, folder in pairwise((resolved, *resolved.parents)):
        yield folder, entry


def _has_others(group: int, owner: int) -> bool:
    """Whether a group has members; many systems give each user a group of their own."""
    trusted = {0, owner, os.geteuid()}
    users = pwd.getpwall()
    try:
        members = grp.getgrgid(group).gr_mem
    except KeyError:  # without a name, as Kubernetes gives groups to volumes
        members = []
    return any(
        user.pw_uid not in trusted and (user.pw_gid == group or user.pw_name in members)
        for user in users
    )


def _other_account(user: int) -> str | None:
    """The name of a user who is neither root nor this one; None if the machine has no such."""
    if user in (0, os.geteuid()):
        return None
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return None


def _group_name(group: int) -> str:
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)
