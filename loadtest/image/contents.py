"""Print the contents of an image as JSON; `check.py` runs this text in a container."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
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


def system_packages() -> list[list[str]]:
    """Name, version and architecture of each package of Debian."""
    form = "${Package}\t${Version}\t${Architecture}\n"
    output = subprocess.check_output(["dpkg-query", "-W", "-f", form], encoding="utf-8")
    return [line.split("\t") for line in output.splitlines()]


def models(folder: Path) -> list[dict[str, object]]:
    """Name and version of each model of the Bento, and the SHA-256 of its files."""
    return [
        {
            "name": path.parent.parent.name,
            "version": path.parent.name,
            "files": {
                file.name: hashlib.sha256(file.read_bytes()).hexdigest()
                for file in sorted(path.parent.iterdir())
                if file != path
            },
        }
        for path in sorted(folder.glob("*/*/model.yaml"))
    ]


def main() -> None:
    json.dump(
        {
            "uid": os.getuid(),
            "bytes": size_bytes("/"),
            "packages": {
                distribution.metadata["Name"]: distribution.version
                for distribution in sorted(distributions(), key=lambda found: found.name)
            },
            "system_packages": system_packages(),
            "models": models(Path(os.environ["BENTO_PATH"]) / "models"),
            "unwanted": [name for name in UNWANTED if shutil.which(name)],
            "writable": writable("/app", os.environ["BENTO_PATH"]),
        },
        sys.stdout,
    )
