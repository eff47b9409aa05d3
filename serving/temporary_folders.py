"""The folders of temporary files that a start makes, and those that killed starts have left.

Each is removed at the end of its start. A start that was killed removes nothing, so the next one
does it. A folder is removed only if a file in it says that this service made it, and if the lock on
that file, which the kernel takes from a process that ends, is free.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from core.private_files import FILE_MODE, open_regular

OWNER = "sentiment-owner"
# Sockets of workers (BentoML makes it) and of the process manager, metrics, and temporary files.
PREFIXES = ("bentoml-uds-", "circus-", "metrics-", "workers-")


def claim(folder: Path) -> None:
    """Mark a folder as needed until this process ends; on a full disk it stays without the mark."""
    new = folder / f"{OWNER}.new"
    with suppress(OSError):
        # `systemd-tmpfiles` removes what is ten days old, but nothing below a locked folder.
        fcntl.flock(os.open(folder, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_SH)
    with suppress(OSError):
        # It stays open, and so locked, as long as this process runs.
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        new.rename(folder / OWNER)  # nobody finds it without its lock


def make_workers_folder() -> Path:
    """Make the folder for the temporary files of all workers; it ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="workers-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    claim(folder)
    return folder


def remove_abandoned(parent: Path | None = None) -> None:
    """Remove the folders of ended starts of this user, by default among the temporary files."""
    with suppress(OSError):
        for folder in (parent or Path(tempfile.gettempdir())).iterdir():
            if folder.name.startswith(PREFIXES):
                _remove_if_abandoned(folder)


def _remove_if_abandoned(folder: Path) -> None:
    with suppress(OSError):
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return
        with open(folder / OWNER, "rb+", opener=open_regular) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
