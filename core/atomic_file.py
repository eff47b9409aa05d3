"""Small files that outlive a process: replaced whole, so that nobody ever reads half of one."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(file: Path, content: bytes) -> None:
    """Replace `file` by `content`, or leave it as it was.

    Raises:
        OSError: the new content could not be written; the old file is still there.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # One temporary file per process: several processes may write the same file.
    new = file.with_suffix(f".{os.getpid()}")
    new.write_bytes(content)
    new.replace(file)
