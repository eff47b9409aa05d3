"""Print the contents of an image as JSON; `scripts.image` runs this text in a container."""

from __future__ import annotations

import json
import os
import shutil
import sys
from importlib.metadata import distributions
from pathlib import Path

UNWANTED = ("gcc", "cc", "make", "git", "uv")
# The container engine mounts these.
MOUNTED = {"/proc", "/sys", "/dev", "/run"}


def size_bytes(folder: str) -> int:
    total, seen = 0, set()
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if f"{parent.rstrip('/')}/{name}" not in MOUNTED]
        for name in files:
            status = os.lstat(f"{parent}/{name}")
            if status.st_ino not in seen:
                seen.add(status.st_ino)
                total += status.st_blocks * 512
    return total


def writable(*folders: str) -> list[str]:
    """The first few files below `folders` that the current user may change."""
    found = (
        str(path)
        for folder in folders
        for path in Path(folder).rglob("*")
        if not path.is_symlink() and os.access(path, os.W_OK)
    )
    return [path for path, _ in zip(found, range(5), strict=False)]


def main() -> None:
    json.dump(
        {
            "uid": os.getuid(),
            "bytes": size_bytes("/"),
            "packages": sorted(distribution.metadata["Name"] for distribution in distributions()),
            "unwanted": [name for name in UNWANTED if shutil.which(name)],
            "writable": writable("/app", os.environ["BENTO_PATH"]),
        },
        sys.stdout,
    )
