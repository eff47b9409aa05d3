"""The folders of temporary files that a process makes, and those that killed ones have left.

Each is removed at the end of its process. One that was killed removes nothing, so the next start
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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core.private_files import FILE_MODE, open_regular

OWNER = "sentiment-owner"
SCRATCH = "sentiment-scratch-"
# Sockets of workers (BentoML makes it) and of the process manager, metrics, and temporary files, of
# the workers and of a model that is saved.
PREFIXES = ("bentoml-uds-", "circus-", "metrics-", "workers-", SCRATCH)


def claim(folder: Path) -> list[int]:
    """Mark a folder as needed until this process ends; on a full disk it stays without the mark.

    Returns the descriptors that hold the locks, while they are open.
    """
    new = folder / f"{OWNER}.new"
    held = []
    with suppress(OSError):
        # `systemd-tmpfiles` removes what is ten days old, but nothing below a locked folder.
        held.append(os.open(folder, os.O_RDONLY | os.O_CLOEXEC))
        fcntl.flock(held[-1], fcntl.LOCK_SH)
    with suppress(OSError):
        held.append(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
        fcntl.flock(held[-1], fcntl.LOCK_EX)
        new.rename(folder / OWNER)  # nobody finds it without its lock
    return held


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """A folder for large temporary files, and in it none but this process's.

    Those that killed processes have left in `parent` are removed before.
    """
    remove_abandoned(parent)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=parent) as folder:
        held = claim(Path(folder))
        try:
            content = Path(folder, "content")
            content.mkdir()
            yield content
        finally:
            for descriptor in held:
                os.close(descriptor)


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Have libraries make their temporary files in `folder`, whose owner removes it.

    BentoML leaves its copy of an archive that holds no model, and chooses a name among the files of
    all users for one that it writes.
    """
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


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
                remove_if_abandoned(folder)


def remove_if_abandoned(folder: Path) -> None:
    """Remove a folder that an ended process of this user had claimed."""
    with suppress(OSError):
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return
        with open(folder / OWNER, "rb+", opener=open_regular) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
