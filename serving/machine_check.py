"""Checks what the machine has to give: folders that can be written, a user, addresses."""

from __future__ import annotations

import errno
import getpass
import os
import pwd
import re
import socket
import stat
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from core.api_keys import parse_key_file
from core.errors import describe_error
from core.key_ring import read_key_file
from core.other_writers import EVERYBODY, check_replaceable, replacers, writers
from core.setting_checks import check_tracing
from core.settings import Settings, SettingsError

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
# It runs the private PostgreSQL, and owns its data, where root starts the service.
DATABASE_ACCOUNT = "pgserver"
# BentoML's model store and what it makes beside it at each start.
BENTOML_FOLDERS = ("bentos", "models", "envs", "tmp")
# BentoML refuses longer addresses of Unix sockets; Linux has room for 107 bytes. The longest name
# that it makes below the folder of temporary files:
MAX_SOCKET_BYTES = 102
LONGEST_SOCKET = "bentoml-uds-xxxxxxxx/140737488355328.sock"
# A line that sets a password or a key; API_KEYS has hashes of keys.
_SECRET_LINE = re.compile(
    r"^[ \t]*(?:export[ \t]+)?"
    r"(DATABASE_URL|REDIS_URL|RUNNER_KEY(?:_ALSO_ACCEPTED)?|LOG_EVENTS_TOKEN)[ \t]*="
    r"[ \t]*[^\s#]",
    re.MULTILINE,
)
_FULL = (errno.ENOSPC, errno.EDQUOT)


def has_private_databases() -> bool:
    """Whether a start can make databases of its own; the image does without."""
    return find_spec("serving.embedded") is not None


def data_folder_problem(folder: Path) -> str | None:
    """Describe why DATA_FOLDER, or a folder of the service in it, cannot be written; else None."""
    if folder == Path(folder.anchor):
        return f"DATA_FOLDER: {folder} is the system's; set it to a folder of this service alone"
    try:
        # The private PostgreSQL, if it is another user's, has to enter it.
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as error:
        return f"DATA_FOLDER: {folder} cannot be made by {this_user()} ({error.strerror})"
    for path in (folder, *(folder / name for name in DATA)):
        if problem := _owner_problem(path):
            return f"DATA_FOLDER: {problem}"
    for path in (folder, folder / SPOOL):
        if problem := _write_problem(path):
            return f"DATA_FOLDER: {problem}"
    return None


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


def user_problem(settings: Settings) -> str | None:
    """Describe why this process's user cannot use the databases without a name; else None."""
    if _has_name():
        return None
    if settings.database_url is None:
        return (
            f"DATABASE_URL: the private PostgreSQL needs a user with a name, and user "
            f"{os.geteuid()} has none; set DATABASE_URL, or name the user in /etc/passwd"
        )
    if settings.sqlalchemy_url().username is None and not os.environ.get("PGUSER"):
        return (
            f"DATABASE_URL: it names no user, and user {os.geteuid()} of this process has no name; "
            "set it to postgresql://user:password@host/db"
        )
    return None


def accept_both_families(listener: socket.socket) -> None:
    """Let a socket of IPv6 that will listen on all addresses take those of IPv4 too.

    The system's default, which an operator can change (net.ipv6.bindv6only), decides otherwise.
    """
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)


def address_problem(host: str, port: int) -> str | None:
    """Describe why the service cannot listen on an address; else None."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            accept_both_families(listener)
            listener.bind((host, port))
    except OSError as error:
        return f"port {port} of {host} cannot be used ({error.strerror}); set PORT or HOST"
    return None


def key_file_problem(file: Path) -> str | None:
    """Describe why API_KEYS_FILE cannot be used; else None."""
    try:
        _, faults = parse_key_file(read_key_file(file).decode(errors="replace"))
    except OSError as error:
        return f"API_KEYS_FILE: {file} cannot be read ({error.strerror}) by {this_user()}"
    except ValueError as error:
        return f"API_KEYS_FILE: {error}"
    return f"API_KEYS_FILE: {'; '.join(faults)}" if faults else None


def secrets_file_problem(file: Path) -> str | None:
    """Describe who else may read the secrets in a `.env`, or write settings into it; else None."""
    try:
        status = file.stat()
        if who := writers(status):
            return f"{file} can be written by {who}, who can change every setting: chmod go-w"
        check_replaceable(file)
        text = file.read_text(encoding="utf-8-sig", errors="replace")
    except ValueError as error:
        return str(error)
    except OSError:
        return None  # there is none, or reading the settings has said why
    named = sorted(set(_SECRET_LINE.findall(text)))
    if named and status.st_mode & stat.S_IROTH:
        return (
            f"{file} holds {', '.join(named)} and can be read by {EVERYBODY}: run chmod 600 {file}"
        )
    return None


def tracing_problem(settings: Settings) -> str | None:
    """Describe a variable of OpenTelemetry that this service cannot honour; else None."""
    try:
        check_tracing(settings)
        if settings.is_traced:
            # Imported here: it loads the SDK, which a process without traces does not need.
            from core.tracing import make_exporter

            make_exporter(settings.traces_endpoint)
    except SettingsError as error:
        return str(error)
    except (ValueError, OSError) as error:
        return f"a variable OTEL_EXPORTER_OTLP_... has an invalid value: {describe_error(error)}"
    return None


def this_user() -> str:
    """The user of this process, by name if there is one, for a message."""
    number = os.geteuid()
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"


def _has_name() -> bool:
    try:
        getpass.getuser()
        pwd.getpwuid(os.geteuid())
    except (KeyError, OSError):
        return False
    return True


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
        if error.errno not in _FULL:
            return f"{folder} cannot be written to by {this_user()} ({error.strerror})"
    return None
