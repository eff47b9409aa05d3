"""Atomic writes of small files, so that a reader never sees half of a file; durable names."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from secrets import token_hex

from core.private_files import FOLDER_MODE, open_new

# Of <fcntl.h> and <linux/fs.h>, for renameat2(2).
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def write_atomically(
    file: Path,
    content: bytes,
    *,
    sync: bool = False,
    owner: tuple[int, int] | None = None,
    makes_folder: bool = True,
) -> None:
    """Replace the content of `file`, or leave the file as it was. Only its owner may read it.

    With `sync`, the new content survives a power cut. `owner` is another user and group to give
    the file to. Without `makes_folder`, a folder that somebody removes stays away.

    Raises:
        FileNotFoundError: the folder is not there, and this may not make it.
        OSError: the new content could not be written; the old file is still there.
    """
    if makes_folder:
        file.parent.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
    # Processes of several containers, which may have the same id, write the same file.
    new = file.with_suffix(f".{token_hex(8)}")
    try:
        with open_new(new) as opened:
            if owner is not None:
                os.fchown(opened.fileno(), *owner)
            opened.write(content)
            if sync:
                opened.flush()
                os.fsync(opened.fileno())
        new.replace(file)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    if sync:
        fsync_folder(file.parent)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two paths that exist, so that neither is missing at any time.

    Returns False, and does nothing, where the system or the file system cannot do it.

    Raises:
        OSError: they cannot be exchanged, such as those of two disks.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    paths = _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other)
    if rename is None:
        return False
    if rename(*paths, _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def fsync_folder(folder: Path) -> None:
    """Make the names of new files survive a power cut."""
    fsync_path(folder, os.O_DIRECTORY)


def fsync_path(path: Path, flags: int = 0) -> None:
    """Make what is in a file or a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
