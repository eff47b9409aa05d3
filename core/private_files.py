"""Files and folders for the user of the service alone: they hold texts and secrets."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from core.other_writers import writers

FILE_MODE = 0o600
FOLDER_MODE = 0o700
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
# A rollout policy of 1,000 subjects has a quarter of a megabyte.
MAX_OWN_BYTES = 16 << 20
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def open_regular(path: str, flags: int) -> int:
    """Open a regular file, for `open(opener=...)`.

    Raises:
        OSError: it cannot be opened, or is a link, a pipe, a device or a folder.
    """
    return open_followed(path, flags | os.O_NOFOLLOW)


def open_followed(path: str, flags: int) -> int:
    """As `open_regular`, but through a link, as the secrets of Kubernetes are."""
    # A pipe without a writer keeps a reader waiting, without O_NONBLOCK.
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "It is no regular file", path)
    return descriptor


def read_own(file: Path) -> bytes:
    """The content of a file of state that the service has written.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger than one of ours can be.
    """
    with open(file, "rb", opener=open_regular) as opened:
        content = opened.read(MAX_OWN_BYTES + 1)
    if len(content) > MAX_OWN_BYTES:
        raise OSError(errno.EFBIG, f"It has more than {MAX_OWN_BYTES:,} bytes", str(file))
    return content


def open_private(path: str, flags: int) -> int:
    """Open a file that only its owner may read, for `open(opener=...)`; it may exist already.

    Raises:
        OSError: it cannot be opened, or is a link or a second name of a file, which another user
            may have put there.
    """
    added = os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags & ~os.O_TRUNC | added, FILE_MODE)
    try:
        status = os.fstat(descriptor)
        _check_names(path, status)
        if status.st_uid == os.geteuid():
            os.fchmod(descriptor, FILE_MODE)
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check_names(path: str, status: os.stat_result) -> None:
    """Refuse a second name of a file, in a folder where another user may have given it.

    Where fs.protected_hardlinks is 0, anybody can do so to any file.
    """
    if status.st_nlink <= 1:
        return
    folder = Path(path).parent.stat()
    is_shared = folder.st_mode & _OTHERS_WRITE
    if is_shared or folder.st_uid not in (0, os.geteuid()):
        raise OSError(errno.EMLINK, "it has another name too", path)


def open_new(file: Path) -> BinaryIO:
    """A new file that only its owner may read, in the place of what has its name.

    Raises:
        OSError: it cannot be made.
    """
    file.unlink(missing_ok=True)  # another user may have put it there, to read what comes into it
    return open(file, "xb", opener=open_private)


def make_private(file: Path) -> None:
    """Make an empty file that only its owner may read, or close the one that exists to others.

    Raises:
        OSError: it cannot be made, or another user has made it and would read what comes into it.
    """
    descriptor = open_private(str(file), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
    owner = os.fstat(descriptor).st_uid
    os.close(descriptor)
    if owner != os.geteuid():
        raise PermissionError(errno.EPERM, f"user {owner} has made it", str(file))


def close_to_others(path: Path) -> None:
    """Take the rights of other users on a file, or on a folder and all that is in it.

    Earlier releases let others read some files. What another user owns stays as it is; so does a
    mount point, whose owner decides about it.
    """
    if not path.exists() or path.is_symlink() or os.path.ismount(path):
        return
    status = path.stat()
    if status.st_uid != os.geteuid():
        return
    if status.st_mode & _OTHERS:
        path.chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS)
    if path.is_dir():
        for entry in path.iterdir():
            close_to_others(entry)


def keep_entries(folder: Path) -> None:
    """Take the right of other users to replace what is in a folder of this user.

    What another user owns stays as it is; so does a mount point, and a folder that is shared on
    purpose, as /tmp is: it has the sticky bit. Some file systems keep the rights that they have.
    """
    status = folder.stat()
    if os.path.ismount(folder) or status.st_uid != os.geteuid() or status.st_mode & stat.S_ISVTX:
        return
    if writers(status) is not None:
        with suppress(OSError):
            folder.chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS_WRITE)
