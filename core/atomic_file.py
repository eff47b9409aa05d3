"""Atomic writes of small files, so that a reader never sees half of a file."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(file: Path, content: bytes) -> None:
    """Replace the content of `file`, or leave the file as it was.

    Raises:
        OSError: the new content could not be written; the old file is still there.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # One temporary file per process: several processes may write the same file.
    new = file.with_suffix(f".{os.getpid()}")
    new.write_bytes(content)
    new.replace(file)
