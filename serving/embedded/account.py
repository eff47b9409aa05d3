"""The account that runs PostgreSQL when root starts the service: PostgreSQL refuses to be root."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.folder_check import DATABASE_ACCOUNT as NAME

# Each lets a process enter folders that are closed to it; containers seldom grant the first.
CAPABILITIES = {"dac_read_search": 2, "dac_override": 1}
# access(2), with which PostgreSQL looks for its own programs, ignores the capabilities of all users
# but root, unless this is set; setting it takes the capability of this number.
HEEDED = "--securebits=+no_setuid_fixup"
SETPCAP = 8


class NoAccount(ValueError):
    """No account can run PostgreSQL here."""


@dataclass(frozen=True)
class Account:
    """A user, and the options of `setpriv` that make a process this user's."""

    uid: int
    gid: int
    options: Sequence[str]


def server_account(folder: Path, entered: Sequence[Path]) -> Account | None:
    """The account for the cluster in `folder`; None if this process is not root's.

    An existing cluster's owner goes on owning it. The modes of folders stay as they are: where
    the account cannot enter a folder on the way to one of `entered`, the server gets the
    capability to do so.

    Raises:
        NoAccount: there is no such account, or it cannot enter these folders.
    """
    if os.geteuid() != 0:
        return None
    entry = _entry(folder.stat().st_uid if folder.exists() else 0)
    options = [f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
    ways = (parent for path in entered for parent in path.resolve().parents)
    if closed := next((folder for folder in ways if not _may_enter(entry, folder)), None):
        effective = _effective_capabilities()
        capability = next(
            (name for name, bit in CAPABILITIES.items() if effective >> bit & 1), None
        )
        if capability is None:
            raise NoAccount(
                f"root may not run PostgreSQL, and the user {entry.pw_name} cannot enter {closed}; "
                "start the service as another user, or let others enter that folder"
            )
        options += [f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}"]
        if effective >> SETPCAP & 1:
            options.append(HEEDED)
    return Account(entry.pw_uid, entry.pw_gid, options)


def own_name() -> str:
    """The name of the user of this process, which PostgreSQL asks for.

    Raises:
        NoAccount: the user has none.
    """
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise NoAccount(
            f"PostgreSQL needs a user with a name, and user {os.geteuid()} has none; set "
            "DATABASE_URL, or name the user in /etc/passwd"
        ) from None


def _entry(owner: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(owner) if owner else pwd.getpwnam(NAME)
    except KeyError:
        if owner:
            raise NoAccount(f"user {owner}, who owns the data of PostgreSQL, is unknown") from None
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", NAME]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        raise NoAccount(
            f"root may not run PostgreSQL, and the user {NAME} cannot be made; make it, or start "
            "the service as another user"
        ) from None
    return pwd.getpwnam(NAME)


def _may_enter(user: pwd.struct_passwd, folder: Path) -> bool:
    found = folder.stat()
    if found.st_uid == user.pw_uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == user.pw_gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)


def _effective_capabilities() -> int:
    """The capabilities of this process, a bit for each."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("CapEff:")[2].split()[0], 16)
