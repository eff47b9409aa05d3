"""Checks an exported model before it is unpacked: a few kilobytes can become terabytes."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

from runners.model_store import InvalidCheckpoint

# A model has some dozens of files.
MAX_FILES = 1_000
# BentoML copies what it unpacks.
_COPIES = 2
_KEPT_FREE = 1 << 30


def check_archive(file: Path, into: Path) -> None:
    """Check that what a tar archive holds has room in `into`.

    The sizes are read before what they are the sizes of, so the first that is too large is the end.

    Raises:
        InvalidCheckpoint: it has too many files, no room for them, or something else than files.
        Exception: it cannot be read; the libraries of the archive and its compression raise many.
    """
    room = (shutil.disk_usage(into).free - _KEPT_FREE) // _COPIES
    unpacked = 0
    with tarfile.open(file, "r|*") as archive:
        for number, member in enumerate(archive, 1):
            if not (member.isreg() or member.isdir()):  # each link is unpacked as a whole file
                raise InvalidCheckpoint(f"{file.name} has a link or a device, which no model has")
            unpacked += member.size
            if number > MAX_FILES:
                raise InvalidCheckpoint(f"{file.name} has more than {MAX_FILES:,} files")
            if unpacked > room:
                raise InvalidCheckpoint(
                    f"{file.name} unpacks to more than {unpacked:,} bytes, twice, for which "
                    f"{into} has no room; set TMPDIR to a folder that has"
                )
