"""What is in the image that this runs in, as JSON: `python -c` of this text, in a container."""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import distributions
from pathlib import Path

UNWANTED = ("gcc", "cc", "make", "git", "uv")
# What a container's host puts in.
NOT_OURS = {"/proc", "/sys", "/dev", "/run"}


def size_bytes(folder: str) -> int:
    total, seen = 0, set()
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if f"{place.rstrip('/')}/{name}" not in NOT_OURS]
        for name in files:
            told = os.lstat(f"{place}/{name}")
            if told.st_ino not in seen:
                seen.add(told.st_ino)
                total += told.st_blocks * 512
    return total


def writable(*folders: str) -> list[str]:
    """The first few files of ours that whoever runs here could change."""
    found = (
        str(path)
        for folder in folders
        for path in Path(folder).rglob("*")
        if not path.is_symlink() and os.access(path, os.W_OK)
    )
    return [path for path, _ in zip(found, range(5), strict=False)]


def on_path(name: str) -> bool:
    return any((Path(place) / name).exists() for place in os.environ["PATH"].split(":"))


json.dump(
    {
        "uid": os.getuid(),
        "bytes": size_bytes("/"),
        "packages": sorted(each.metadata["Name"] for each in distributions()),
        "unwanted": [name for name in UNWANTED if on_path(name)],
        "writable": writable("/app", os.environ["BENTO_PATH"]),
    },
    sys.stdout,
)
