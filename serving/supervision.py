"""Supervises the worker processes of `bentoml serve`: restarts dead ones, stops them in order.

BentoML looks for dead workers every ten seconds, does not replace them in a container, stops the
runners while the API still needs them, and waits a day for a worker that does not stop.
"""

from __future__ import annotations

import asyncio
import functools
import shutil
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from circus.exc import ConflictError

from core.temporary_folders import claim, make_workers_folder, remove_abandoned
from serving.forking import ForkedWorker, ForkServer, NoForkServer, fork_server
from serving.framework import (
    is_lean_worker,
    is_worker,
    lean_worker,
    never_give_up,
    reserve_no_port,
    start_workers_by,
    stop_at_hangup,
    stop_when_busy,
    use_steady_clock,
    wrap_arbiter,
)
from serving.machine_check import accept_both_families
from serving.metrics_folder import MetricsFolder
from serving.preflight import Address
from serving.watchdog import SOCKET_NAME, Watchdog
from serving.worker_ends import WorkerEnds

CHECK_SECONDS = 1.0
STOP_POLL_SECONDS = 0.05
# A server looks every 0.1 s whether it has to stop, and then accepts nothing more.
SERVER_STOP_SECONDS = 0.3
# BentoML names the processes of the service itself so, and a runner's with a suffix.
API_WATCHER = "service"

# Gets the names of the workers' services and the addresses that they will listen on, and returns
# what the workers' environment has to add.
Preparation = Callable[[Set[str], Sequence[Address]], Mapping[str, str]]

# Gets the names of a worker's services, and returns a time from SIGTERM on.
Seconds = Callable[[Set[str]], float]


def supervise(*, accept_seconds: Seconds, stop_seconds: Seconds, before: Preparation) -> None:
    """Replace dead and hanging workers; stop the API first; kill slow ones.

    A worker accepts connections for `accept_seconds` after SIGTERM, and is killed after
    `stop_seconds`. `before` runs before the first worker starts. service.py calls this at import,
    before its processes are made; in a worker it does nothing.
    """
    if not is_worker():
        stop_at_hangup()
        stop_when_busy()
        use_steady_clock()
        reserve_no_port()
        wrap_arbiter(
            functools.partial(
                _make, accept_seconds=accept_seconds, stop_seconds=stop_seconds, before=before
            )
        )


def _make(
    make: Any,
    watchers: Sequence[Any],
    *,
    accept_seconds: Seconds,
    stop_seconds: Seconds,
    before: Preparation,
    **options: Any,
) -> Any:
    for watcher in watchers:
        watcher.args = lean_worker(watcher.args)
    # Its imports go on while `before` starts the databases.
    forks = _fork_server(watchers, is_reloading=bool(options.get("plugins")))
    services = {name for watcher in watchers for name in _service_names(watcher.args)}
    sockets = options.get("sockets", ())
    for tcp in sockets:
        accept_both_families(tcp)
    socket_folders = {Path(unix.path).parent for unix in sockets if unix.path}
    for folder in socket_folders:
        claim(folder)
    remove_abandoned()
    try:
        environment = before(services, [(tcp.host, tcp.port) for tcp in sockets if not tcp.path])
    except SystemExit:
        # BentoML removes the folder of its sockets only at other errors.
        for folder in socket_folders:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    metrics = MetricsFolder()
    environment = {
        **environment,
        "PROMETHEUS_MULTIPROC_DIR": str(metrics.path),
        # A worker that is killed leaves its temporary files; here they end with the start.
        "TMPDIR": str(make_workers_folder()),
    }
    api = [watcher for watcher in watchers if watcher.name == API_WATCHER]
    for watcher in watchers:
        watcher.respawn = True
        watcher.env.update(environment)
        watcher.graceful_timeout = stop_seconds(_service_names(watcher.args))
        # A worker ends its own children. SIGTERM would end a log shipper that has just begun.
        watcher.stop_children = False
        watcher.stdin_socket = SOCKET_NAME
        never_give_up(watcher)
        if watcher not in api:
            watcher.kill_processes = _after(api, watcher.kill_processes)
    arbiter = make(watchers, **{"check_delay": CHECK_SECONDS, **options})
    watchdog, ends = Watchdog(), WorkerEnds()
    arbiter.sockets[SOCKET_NAME] = watchdog.socket
    if forks is not None:
        forks.wait_until_ready()
        start_workers_by(functools.partial(_start, forks, watchdog.socket.fileno()))
    check, checked_at = arbiter.manage_watchers, time.monotonic()

    def check_and_watch() -> Awaitable[None] | None:
        nonlocal checked_at
        before, checked_at = checked_at, time.monotonic()
        workers = _processes(watchers)
        watchdog.check(workers, checked_at - before)
        metrics.merge_dead({process for _, process in workers})
        # Last: the check waits for the ended ones, and nothing is known of them any more.
        ends.tell(
            {watcher.name: [*watcher.processes] for watcher in watchers if watcher.is_active()}
        )
        return _check_if_idle(check)

    arbiter.manage_watchers = check_and_watch
    arbiter.stop = _then_refuse(
        [tcp for tcp in sockets if not tcp.path],
        accept_seconds(services) + SERVER_STOP_SECONDS,
        arbiter.stop,
    )
    return arbiter


def _then_refuse(
    sockets: Sequence[socket.socket], seconds: float, stop: Callable[[], Awaitable[None]]
) -> Callable[[], Awaitable[None]]:
    """`stop`, and in `seconds` refuse what still connects.

    This process holds the sockets open to its end, and what connected would wait until then.
    """

    def stop_and_refuse() -> Awaitable[None]:
        stopping = stop()
        asyncio.get_running_loop().call_later(seconds, _refuse_connections, sockets)
        return stopping

    return stop_and_refuse


def _refuse_connections(sockets: Sequence[socket.socket]) -> None:
    for listening in sockets:
        with suppress(OSError):  # it does not listen any more
            listening.shutdown(socket.SHUT_RDWR)


def _fork_server(watchers: Sequence[Any], *, is_reloading: bool) -> ForkServer | None:
    """What forks the workers; None for a single one, or if they may have to import another code."""
    workers = sum(watcher.numprocesses for watcher in watchers if is_lean_worker(watcher.args))
    return fork_server() if workers > 1 and not is_reloading else None


def _start(
    forks: ForkServer,
    stdin: int,
    command: Sequence[str],
    *,
    cwd: str,
    env: Mapping[str, str],
    **options: Any,
) -> psutil.Popen | ForkedWorker:
    """Start a process of the manager; `stdin` is the one that its watcher names."""
    if is_lean_worker(command[1:]):
        with suppress(NoForkServer):
            return forks.start_worker(command, stdin=stdin, folder=cwd, environment=env)
    return psutil.Popen(command, cwd=cwd, env=env, **options)


def _processes(watchers: Sequence[Any]) -> list[tuple[str, int]]:
    return [
        (watcher.name, process.pid)
        for watcher in watchers
        for process in watcher.get_active_processes()
    ]


def _check_if_idle(check: Callable[[], Awaitable[None]]) -> Awaitable[None] | None:
    try:
        return check()
    except ConflictError:
        return None  # it restarts the workers, because a file changed


def _service_names(arguments: Sequence[str]) -> set[str]:
    return {name for flag, name in pairwise(arguments) if flag == "--service-name"}


def _after(
    first: Sequence[Any], kill_processes: Callable[..., Awaitable[None]]
) -> Callable[..., Awaitable[None]]:
    async def kill_then(*args: Any, **options: Any) -> None:
        # The API's processes still call the runners while they finish their requests.
        while True:
            if not any(watcher.get_active_processes() for watcher in first):
                break
            await asyncio.sleep(STOP_POLL_SECONDS)
        await kill_processes(*args, **options)

    return kill_then
