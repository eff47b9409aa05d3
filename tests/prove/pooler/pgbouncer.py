"""A real PgBouncer in transaction mode, in front of a PostgreSQL of the test's own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL

from loadtest.ports import free_port
from tests.served.cable import Cable
from tests.waiting import wait_until

# PgBouncer refuses to be root.
AS_NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
SOCKET = ".s.PGSQL.5432"
# Fewer than the clients, so that each transaction may get another server.
SERVERS = 3
CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={postgres} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {servers}
server_round_robin = 1
"""


class PgBouncer:
    """A pooler in front of the PostgreSQL that listens on `postgres_port`."""

    def __init__(self, postgres: URL, postgres_port: int, folder: Path) -> None:
        port = free_port()
        self.url = postgres.set(query={}, host="127.0.0.1", port=port)
        self._file = folder / "pgbouncer.ini"
        self._file.write_text(
            CONFIGURATION.format(postgres=postgres_port, port=port, servers=SERVERS)
        )

    def start(self) -> None:
        """Start it; raises AssertionError if it is not installed."""
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "install pgbouncer: apt-get install pgbouncer"
        user = AS_NOBODY if os.geteuid() == 0 else ()
        # It cannot enter the folder of the file, so it gets the open file.
        with self._file.open("rb") as configuration:
            self._process = subprocess.Popen(
                [*user, program, "-q", "/dev/stdin"], stdin=configuration
            )
        wait_until(self._listens)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _listens(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex((str(self.url.host), self.url.port or 0)) == 0


@contextmanager
def pgbouncer(postgres: URL, folder: Path) -> Iterator[PgBouncer]:
    """Run PgBouncer in front of `postgres`, which lets in nobody but the user of this process."""
    postgres_port = free_port()
    with Cable(Path(str(postgres.query["host"])) / SOCKET).listening(postgres_port):
        pooler = PgBouncer(postgres, postgres_port, folder)
        pooler.start()
        try:
            yield pooler
        finally:
            pooler.kill()
