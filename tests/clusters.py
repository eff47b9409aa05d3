"""PostgreSQL clusters as a start makes them: copies of one of this run, as initdb takes seconds."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import psutil
from sqlalchemy import URL

from migrations.upgrade import upgrade
from serving.embedded.postgres import embedded_postgres
from tests.database import run_sql
from tests.run import run_folder

# A database of each, at the newest schema.
MIGRATED: Final = "migrated"
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  each folder in it is made anew
_PREFIX: Final = "test-cluster-"
# For a cluster of each worker, with its write-ahead log; and as much for all else.
_ROOM_BYTES: Final = 6 << 30
# One of another run, which has yet to lock it.
_NEW_SECONDS: Final = 60.0


@contextmanager
def cluster_folder() -> Iterator[Path]:
    """A folder for the cluster of a worker, in memory if there is room for those of all.

    On disk, the file system takes a fifth of the CPU time of a test with a database to make and
    delete files.
    """
    where = _MEMORY if _has_room() else None
    if where is not None:
        _remove_left(where)
    with TemporaryDirectory(prefix=_PREFIX, dir=where) as made:
        held = os.open(made, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield Path(made)
        finally:
            os.close(held)


def _has_room() -> bool:
    with suppress(OSError):
        free = shutil.disk_usage(_MEMORY).free
        available = psutil.virtual_memory().available
        return os.access(_MEMORY, os.W_OK) and min(free, available / 2) > _ROOM_BYTES
    return False


def _remove_left(where: Path) -> None:
    """Remove those of runs that were killed, which would stay in memory."""
    for left in where.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime < _NEW_SECONDS:
                continue
            held = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)
            finally:
                os.close(held)


@contextmanager
def postgres_in(folder: Path) -> Iterator[URL]:
    """Run the private PostgreSQL on a new cluster in `folder`, which is absent."""
    with embedded_postgres(new_cluster(folder)) as url:
        yield url


def new_cluster(folder: Path) -> Path:
    """Make a cluster in `folder`, which is absent."""
    made = _made_once()
    folder.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    # Its files are those of the server's account.
    subprocess.run(["cp", "-a", "--reflink=auto", "--", made, folder], check=True)
    return folder


def _made_once() -> Path:
    made, new = (run_folder() / name for name in ("cluster", "cluster-new"))
    with made.with_suffix(".making").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(new, ignore_errors=True)
            with embedded_postgres(new) as url:
                run_sql(url, f"CREATE DATABASE {MIGRATED}")
                upgrade(url.set(database=MIGRATED))
            (new / "log").unlink()
            new.rename(made)
    return made
