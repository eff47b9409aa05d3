"""Atomic writes of small files, so that a reader never sees half of a file; durable names."""

from __future__ import annotations

import os
from pathlib import Path

from core.private_files import FOLDER_MODE, open_private


def write_atomically(file: Path, content: bytes, *, sync: bool = False) -> None:
    """Replace the content of `file`, or leave the file as it was. Only its owner may read it.

    With `sync`, the new content survives a power cut.

    Raises:
        OSError: the new content could not be written; the old file is still there.
    """
    file.parent.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
    # One temporary file per process: several processes may write the same file.
    new = file.with_suffix(f".{os.getpid()}")
    try:
        with open(new, "wb", opener=open_private) as opened:
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


def fsync_folder(folder: Path) -> None:
    """Make the names of new files survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
