"""Atomic writes of small files, so that a reader never sees half of a file."""

from __future__ import annotations

import os
from pathlib import Path

from core.private_files import FOLDER_MODE, open_private


def write_atomically(file: Path, content: bytes) -> None:
    """Replace the content of `file`, or leave the file as it was. Only its owner may read it.

    Raises:
        OSError: the new content could not be written; the old file is still there.
    """
    file.parent.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
    # One temporary file per process: several processes may write the same file.
    new = file.with_suffix(f".{os.getpid()}")
    try:
        with open(new, "wb", opener=open_private) as opened:
            opened.write(content)
        new.replace(file)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
