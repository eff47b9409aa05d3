"""Small files that outlive a process: replaced whole, so that nobody ever reads half of one."""

from __future__ import annotations

import os
from pathlib import Path


def keep(file: Path, content: bytes) -> None:
    """Raises OSError: what was there before is there still."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # Of each process its own: several may keep the same file.
    new = file.with_suffix(f".{os.getpid()}")
    new.write_bytes(content)
    new.replace(file)
