"""Finds the private databases that a service runs in its DATA_FOLDER, for commands beside it."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from pydantic import SecretStr

from core.settings import Settings
from serving.embedded import postgres, redis
from serving.embedded.children import short_socket_folder, works_in

if TYPE_CHECKING:
    from sqlalchemy import URL


class OtherUser(PermissionError):
    """The private PostgreSQL lets in another user than this one."""


def with_private_databases(settings: Settings) -> Settings:
    """`settings`, with the private databases that run in DATA_FOLDER in place of unset URLs.

    Raises:
        OtherUser: another user started the private PostgreSQL.
    """
    found = {}
    if settings.database_url is None and (url := find_postgres(settings.data_folder / "postgres")):
        found["database_url"] = SecretStr(url.render_as_string(hide_password=False))
    if settings.redis_url is None and (redis_url := find_redis(settings.data_folder / "redis")):
        found["redis_url"] = SecretStr(redis_url)
    return settings.model_copy(update=found)


def find_postgres(folder: Path) -> URL | None:
    """The URL of the private PostgreSQL that runs on the data in `folder`; None if none does.

    Raises:
        OtherUser: another user started it.
    """
    folder = folder.resolve()
    lock = folder.with_name(f"{folder.name}.lock")
    try:
        owner = lock.stat().st_uid
        lines = postgres.status_lines(folder)
    except PermissionError as error:
        raise OtherUser(f"{folder} is another user's; {_RUN_AS} that user") from error
    except OSError:
        return None
    if not lines or not _is_alive(lines[0], folder):
        return None
    # It lets in the user alone that started it, also not root.
    if owner != os.geteuid():
        raise OtherUser(f"{folder} is served by {_name(owner)}; {_RUN_AS} that user")
    return postgres.url_at(Path(lines[4]))


def find_redis(folder: Path) -> str | None:
    """The URL of the private Redis that runs in `folder`; None if none answers."""
    folder = folder.resolve()
    for sockets in (folder, short_socket_folder(folder, os.geteuid())):
        path = sockets / redis.SOCKET
        if redis.answers(path):
            return redis.url_at(path)
    return None


_RUN_AS = "run the command as"


def _is_alive(pid: str, folder: Path) -> bool:
    try:
        return works_in(psutil.Process(int(pid)), folder)
    except (ValueError, psutil.Error):
        return False


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
