"""PostgreSQL clusters as a start makes them: copies of one of this run, as initdb takes seconds."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from migrations.upgrade import upgrade
from serving.embedded.postgres import embedded_postgres
from tests.database import run_sql
from tests.run import run_folder

# A database of each, at the newest schema.
MIGRATED: Final = "migrated"


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
