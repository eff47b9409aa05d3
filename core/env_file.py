"""The `.env` beside service.py: a start reads it, and its processes take the start's values.

A process that is replaced would read it anew: with a changed one, the processes of a service would
have different settings, and with an invalid one there would be no process any more. The same holds
for the file of the log's keys.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from dotenv import dotenv_values

from core.paths import ROOT
from core.setting_sources import trimmed

ENV_FILE = ROOT / ".env"
ENCODING = "utf-8-sig"  # editors of Windows put a mark before the first name
# In the environment of a process that has the values of `.env` there too.
READ_ALREADY = "SENTIMENT_ENV_FILE_IS_READ"


def is_read_already() -> bool:
    return READ_ALREADY in os.environ


def env_file_problem(file: Path = ENV_FILE) -> str | None:
    """Why there is a `.env` that cannot be read; without it a service may be open to everybody."""
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        return "it is a link that leads nowhere" if os.path.lexists(file) else None
    except OSError as error:
        return error.strerror
    return None if stat.S_ISREG(mode) else "it is no regular file"


def environment_of_workers(
    names: Collection[str],
    environment: Mapping[str, str] = os.environ,
    file: Path = ENV_FILE,
    *,
    hash_keys: Sequence[bytes] = (),
) -> dict[str, str]:
    """What to add to `environment`, so that a process reads neither `.env` nor LOG_HASH_KEY_FILE.

    `names` are those of settings, in lower case. They count in any case, as in `environment`.
    `hash_keys` are the keys of the log, wherever they come from.
    """
    added = {READ_ALREADY: "1"}
    if READ_ALREADY not in environment:
        given = {name.lower() for name, value in environment.items() if trimmed(value)}
        for name, value in dotenv_values(file, encoding=ENCODING).items():
            if value and name.lower() in names and name.lower() not in given:
                added[name.upper()] = value
    if hash_keys:
        places = [name for name in {*environment, *added} if name.lower() == "log_hash_key_file"]
        added |= dict.fromkeys(places, "")
        added["LOG_HASH_KEY"] = b",".join(hash_keys).decode()
    return added
