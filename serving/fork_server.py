"""The program of the fork server: imports once what every worker needs, and forks the workers.

The supervisor starts it by its path (serving/forking), as it starts serving/worker.py. It is a
process of its own, so that a worker inherits nothing of the supervisor's: no lock, no open file, no
exit handler (docs/decisions/0071).
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
# What API and runners import, as long as it takes, starts no thread and opens no file.
PRELOADED = (
    # Ours, with the libraries that they need. service.py is not: its import sets a process up.
    "runners.engines.choice",
    "runners.slot",
    "runners.stream",
    "serving.container",
    "serving.first_series",
    "serving.process",
    "web.schemas.admin",
    "web.schemas.predictions",
    "analytics.log.__main__",  # the shipper is forked from an API process
    # What the libraries import only when they are used.
    "openvino.opset13",
    "opentelemetry.instrumentation.asgi",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.websockets.auto",
)
# What `ps` shows of a process that waits to be a log shipper.
STANDBY = (sys.executable, "log-shipper-standby")
READY = b"ready"
MAX_REQUEST_BYTES = 1 << 20


class Request(NamedTuple):
    """A worker to fork; with it come its standard input and the socket that it serves."""

    supervisor: int  # the number of its process
    arguments: list[str]  # the whole command line
    environment: dict[str, str]
    folder: str
    socket_number: int  # by which the arguments name the socket


def main() -> None:
    """Serve the socket whose number is the first argument; in a worker, be that worker."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    supervisor = os.getppid()
    set_command_line(sys.orig_argv[:2])
    if not sys.flags.safe_path:
        sys.path[0] = str(ROOT)
    from core.signals import end_with_parent

    end_with_parent()
    if os.getppid() != supervisor:
        return
    preload()
    try:
        channel.send(READY)
        forked = serve(channel)
    except ConnectionError:
        return  # the supervisor ended before it read that
    if forked is not None:
        channel.close()
        become_worker(*forked)


def preload() -> None:
    """Import what workers need, into memory that they will share.

    Raises:
        SystemExit: an import started a thread, which no forked process would have.
    """
    from serving import worker

    worker.leave_out(worker.UNUSED)
    # What is collected leaves holes, which each worker would fill and so copy.
    gc.disable()
    worker.import_bentoml()
    from runners.engines.lean_openvino import import_openvino

    import_openvino()
    for module in (worker.CLIENT, *PRELOADED):
        importlib.import_module(module)
    from core.settings import get_settings

    # A worker reads the settings of its own environment.
    get_settings.cache_clear()
    gc.freeze()
    if (threads := len([*Path("/proc/self/task").iterdir()])) != 1:
        raise SystemExit(f"the fork server has {threads} threads, and cannot fork workers")


def serve(channel: socket.socket) -> tuple[Request, list[int]] | None:
    """Fork a worker at each request, until the supervisor ends.

    Returns in a worker, with its request and the descriptors that came with it; else None.
    """
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, MAX_REQUEST_BYTES, maxfds=2)
        if not message:
            return None
        started, may_start = os.pipe()
        try:
            number = fork_orphan()
        except OSError as error:
            reply: dict[str, Any] = {"error": os.strerror(error.errno or 0)}
        else:
            if number == 0:
                os.close(may_start)
                # The end of the pipe says that the fork server ended, and nobody knows this worker.
                if not os.read(started, 1):
                    os._exit(1)
                os.close(started)
                return Request(*json.loads(message)), descriptors
            reply = {"process": number}
        for descriptor in (started, *descriptors):
            os.close(descriptor)
        try:
            channel.send(json.dumps(reply).encode())
            if "process" in reply:
                os.write(may_start, b"1")
        except ConnectionError:
            return None  # the supervisor has given up
        finally:
            os.close(may_start)


def fork_orphan() -> int:
    """Fork a process whose parent has ended, so that the supervisor inherits it; 0 in that process.

    Raises:
        OSError: there are too many processes, or no memory.
    """
    numbers, answer = os.pipe()
    parent = os.fork()
    if parent == 0:
        try:
            number = os.fork()
        except OSError as error:
            os._exit(error.errno or 1)
        if number:
            os.write(answer, number.to_bytes(4, "big"))
            os._exit(0)
        os.close(numbers)
        os.close(answer)
        return 0
    os.close(answer)
    _, status = os.waitpid(parent, 0)
    written = os.read(numbers, 4)
    os.close(numbers)
    if not written:
        code = os.waitstatus_to_exitcode(status)
        raise OSError(code, os.strerror(code))
    return int.from_bytes(written, "big")


def become_worker(request: Request, descriptors: list[int]) -> None:
    """Make this process what a worker is that was started, and run it."""
    from core import metrics
    from core.standby import fork_standby
    from serving import worker

    if os.getppid() != request.supervisor:
        os._exit(1)  # it has ended
    os.setsid()
    os.environ.clear()
    os.environ.update(request.environment)
    time.tzset()
    tempfile.tempdir = None
    sys.argv = request.arguments[1:]
    if not worker.is_runner() and fork_standby():
        become_shipper(descriptors)
        return
    stdin, served = descriptors
    os.dup2(stdin, 0)
    os.close(stdin)
    if served != request.socket_number:
        os.dup2(served, request.socket_number)
        os.close(served)
    os.chdir(request.folder)
    set_command_line(request.arguments)
    if not sys.flags.safe_path:
        sys.path[0] = request.folder
    metrics.open_files(Path(request.environment["PROMETHEUS_MULTIPROC_DIR"]))
    if worker.is_runner():
        sys.modules[worker.CLIENT].RemoteProxy = worker.NoProxy  # type: ignore[attr-defined]
    gc.enable()
    worker.run()


def become_shipper(descriptors: list[int]) -> None:
    """Wait until the API process that forked this one needs a log shipper, and be that."""
    from analytics.log import __main__ as shipper
    from analytics.log.shipper_supervisor import COMMAND
    from core import metrics
    from core.standby import wait_until_taken

    for descriptor in descriptors:
        os.close(descriptor)
    os.chdir(ROOT)
    set_command_line(STANDBY)
    wait_until_taken()
    set_command_line(COMMAND)
    metrics.open_files(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
    gc.enable()
    shipper.main()


def set_command_line(arguments: Sequence[str]) -> None:
    """Show `arguments` as the command line of this process, cut to the length of the present one.

    The kernel shows what is in the memory of the arguments, whose last byte is not 0 then, up to
    the first 0 (get_mm_proctitle of fs/proc/base.c). The environment behind it stays.
    """
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end of proc(5)
    shown = os.fsencode(" ".join(arguments))[: end - start - 2]
    ctypes.memmove(start, shown.ljust(end - start - 1, b"\0") + b" ", end - start)


if __name__ == "__main__":
    main()
