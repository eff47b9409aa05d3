"""Checks what the machine has to give: a user, addresses, files of keys and settings."""

from __future__ import annotations

import errno
import getpass
import os
import pwd
import re
import socket
import stat
from importlib.util import find_spec
from pathlib import Path

from core.api_keys import parse_key_file
from core.env_file import misspelt_names
from core.errors import describe_error
from core.key_ring import read_key_file
from core.other_writers import EVERYBODY, check_owners, check_replaceable, writers
from core.setting_checks import check_tracing
from core.settings import Settings, SettingsError

# A line that sets a password or a key; API_KEYS has hashes of keys.
_SECRET_LINE = re.compile(
    r"^[ \t]*(?:export[ \t]+)?"
    r"(DATABASE_URL|REDIS_URL|RUNNER_KEY(?:_ALSO_ACCEPTED)?|LOG_EVENTS_TOKEN)[ \t]*="
    r"[ \t]*[^\s#]",
    re.MULTILINE,
)


_OTHER_LOOPBACK = {"127.0.0.1": "::1", "::1": "127.0.0.1"}
_RESERVED: list[socket.socket] = []


def has_private_databases() -> bool:
    """Whether a start can make databases of its own; the image does without."""
    return find_spec("serving.embedded") is not None


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
    try:
        with socket.socket(_family(host)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            accept_both_families(listener)
            listener.bind((host, port))
    except OSError as error:
        return f"port {port} of {host} cannot be used ({error.strerror}); set PORT or HOST"
    return None


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def reserve_localhost(host: str, port: int) -> str | None:
    """Keep the port at the other loopback address, where `localhost` may lead, from other users.

    A program there would get the keys of clients that were meant for the service. Nothing listens
    at the reserved one, so that clients go on to the service's. It is kept until the process ends.
    Returns a warning if another program has it.
    """
    other = _OTHER_LOOPBACK.get(host)
    if other is None:
        return None
    try:
        reserved = socket.socket(_family(other))
    except OSError:  # a machine without IPv6
        return None
    try:
        reserved.bind((other, port))
    except OSError as error:
        reserved.close()
        if error.errno != errno.EADDRINUSE:
            return None
        return (
            f"another program has port {port} of {other}, where `localhost` may lead: name {host} "
            "in the URLs of clients"
        )
    _RESERVED.append(reserved)
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
        check_owners(file)
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


def misspelt_settings(file: Path) -> str | None:
    """Describe names in a `.env` that are nearly those of settings; else None."""
    found = misspelt_names(Settings.model_fields, file)
    told = "; ".join(f"{name} is no setting: is {meant} meant?" for name, meant in found)
    return f"{file}: {told}" if told else None


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
