"""Checks the folders that the service writes to: DATA_FOLDER, BENTOML_HOME and TMPDIR."""

from __future__ import annotations

import os
import pwd
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from core.full_disk import FULL_DISK
from core.other_writers import check_replaceable, replacers, writers
from serving.machine_check import this_user

# What the service writes in DATA_FOLDER; the private databases look after their own folders.
SPOOL = "spool"
DATA = (
    SPOOL,
    "cache.key",
    "jobs",
    "lock",
    "models",
    "postgres",
    "redis",
    "rollout.json",
    "spool.key",
)
# Everybody looks for other things there (Filesystem Hierarchy Standard, 3).
SYSTEM = frozenset(
    Path("/", name)
    for name in (
        "", "bin", "boot", "dev", "etc", "home", "lib", "lib64", "root", "run", "sbin", "tmp",
        "usr", "usr/bin", "usr/lib", "usr/local", "usr/share", "var", "var/lib",
    )
)  # fmt: skip
# It runs the private PostgreSQL, and owns its data, where root starts the service.
DATABASE_ACCOUNT = "pgserver"
# BentoML's model store and what it makes beside it at each start.
BENTOML_FOLDERS = ("bentos", "models", "envs", "tmp")
# BentoML refuses longer addresses of Unix sockets; Linux has room for 107 bytes. The longest name
# that it makes below the folder of temporary files:
MAX_SOCKET_BYTES = 102
LONGEST_SOCKET = "bentoml-uds-xxxxxxxx/140737488355328.sock"


def data_folder_problem(folder: Path) -> str | None:
    """Describe why DATA_FOLDER, or a folder of the service in it, cannot be written; else None."""
    if folder.resolve() in SYSTEM:
        return f"DATA_FOLDER: {folder} is the system's; set it to a folder of this service alone"
    try:
        # The private PostgreSQL, if it is another user's, has to enter it.
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as error:
        return f"DATA_FOLDER: {folder} cannot be made by {this_user()} ({error.strerror})"
    for path in (folder, *(folder / name for name in DATA)):
        if problem := _owner_problem(path):
            return f"DATA_FOLDER: {problem}"
    # The start takes the right from a folder of its own.
    if folder.stat().st_uid != os.geteuid() and (problem := _open_problem(folder)):
        return f"DATA_FOLDER: {problem}"
    for path in (folder, folder / SPOOL):
        if problem := _write_problem(path):
            return f"DATA_FOLDER: {problem}"
    return None


def data_folder_warning(folder: Path) -> str | None:
    """Describe who may move away what the service has in DATA_FOLDER; None: nobody.

    Whoever does so answers in the place of the private Redis, or has lines of their own stored. The
    owner of a mount point decides about it: a volume of Kubernetes lets everybody, and only this
    service is there.
    """
    if problem := _open_problem(folder):
        return f"DATA_FOLDER: {problem}"
    if os.path.ismount(folder):
        return None
    if (owner := folder.stat().st_uid) not in (0, os.geteuid()):
        return (
            f"DATA_FOLDER: {folder} belongs to user {owner}, who can replace what is in it; give "
            f"it to {this_user()}"
        )
    try:
        check_replaceable(folder)
    except ValueError as error:
        return f"DATA_FOLDER: {error}"
    except OSError:
        return None  # whoever cannot look at a folder on the way is told so elsewhere
    return None


def _open_problem(folder: Path) -> str | None:
    """Describe who beside its owner may replace what is in a folder; None: nobody."""
    if os.path.ismount(folder) or (who := replacers(folder, os.geteuid())) is None:
        return None
    return (
        f"{folder} lets {who} replace what is in it; `chmod go-w {folder}`, or set it to a folder "
        "of this service alone"
    )


def bentoml_home() -> Path | None:
    """The folder of BentoML; None if BENTOML_HOME is set to nothing.

    Raises:
        RuntimeError: it is in the home folder of a user who has none.
    """
    configured = os.path.expandvars(os.environ.get("BENTOML_HOME", "~/bentoml"))
    return Path(configured).expanduser() if configured else None


def bentoml_home_problem() -> str | None:
    """Describe why BentoML cannot write its home (BENTOML_HOME, else ~/bentoml); else None."""
    hint = "set BENTOML_HOME to a folder that this user may write"
    try:
        home = bentoml_home()
    except RuntimeError:
        return f"BENTOML_HOME: {this_user()} has no home folder; {hint}"
    if home is None:
        return "BENTOML_HOME: it is set to nothing; set it to a folder, or unset it"
    for path in (home, *(home / name for name in BENTOML_FOLDERS)):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            return (
                f"BENTOML_HOME: {path} cannot be made by {this_user()} ({error.strerror}); {hint}"
            )
        # A read-only store of models is enough to serve them.
        problem = None if path.name == "models" else _write_problem(path)
        if problem is not None:
            return f"BENTOML_HOME: {problem}; {hint}"
    return None


def temporary_folder_problem() -> str | None:
    """Describe why the folder of temporary files (TMPDIR) cannot be used; else None."""
    try:
        folder = Path(tempfile.gettempdir())
    except OSError:
        return f"TMPDIR: {this_user()} can write to none of TMPDIR, /tmp, /var/tmp and /usr/tmp"
    if len(os.fsencode(folder / LONGEST_SOCKET)) > MAX_SOCKET_BYTES:
        return (
            f"TMPDIR: {folder} is too long for the sockets of the workers, whose addresses have "
            f"{MAX_SOCKET_BYTES} bytes; set TMPDIR=/tmp"
        )
    if who := _strangers(folder):
        return (
            f"TMPDIR: {folder} lets {who} replace the sockets of the workers, and so read and "
            f"answer predictions; `chmod +t {folder}`, or set TMPDIR to a folder of your own"
        )
    return None


def _strangers(folder: Path) -> str | None:
    """Name the users who may replace what this process makes in a folder and who use it.

    A volume of Kubernetes lets everybody, and only this service is there.
    """
    trusted = {0, os.geteuid()}
    with suppress(OSError):
        if (owner := folder.stat().st_uid) not in trusted:
            return f"its owner, user {owner},"
        if who := replacers(folder, os.geteuid()):
            with os.scandir(folder) as entries:
                if any(
                    entry.stat(follow_symlinks=False).st_uid not in trusted for entry in entries
                ):
                    return who
    return None


def _owner_problem(path: Path) -> str | None:
    """Describe why another user may get what the service writes to `path`; else None.

    Another user's link leads elsewhere. In a folder that others may write to, another user's folder
    or file is planted there. The owner of a mount point decides about it.
    """
    try:
        status = path.lstat()
        if status.st_uid in (0, os.geteuid()):
            return None
        if stat.S_ISLNK(status.st_mode):
            return f"{path} is a link that user {status.st_uid} has made; remove it"
        who = None if os.path.ismount(path) else writers(path.parent.stat())
        if who is None:
            return None
        if path.name == "postgres" and pwd.getpwuid(status.st_uid).pw_name == DATABASE_ACCOUNT:
            return None
    except (OSError, KeyError):
        return None
    return (
        f"{path} belongs to user {status.st_uid}, and lies in a folder that {who} may write to; "
        f"remove it, or give it to {this_user()}"
    )


def _write_problem(folder: Path) -> str | None:
    """Describe why no file can be made in a folder, if it exists; else None.

    A file is made: a mount that is read-only has its rights all the same. A full disk may get
    room again, and LOG_WHEN_FULL says what happens until then.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        return f"{folder} is no folder"
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno not in FULL_DISK:
            return f"{folder} cannot be written to by {this_user()} ({error.strerror})"
    return None
