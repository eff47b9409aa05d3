"""The `.env` beside service.py: a start reads it, and its processes take the start's values.

A process that is replaced would read it anew: with a changed one, the processes of a service would
have different settings, and with an invalid one there would be no process any more. The same holds
for the file of the log's keys.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from core.paths import ROOT
from core.setting_sources import trimmed

ENV_FILE = ROOT / ".env"
ENCODING = "utf-8-sig"  # editors of Windows put a mark before the first name
# Of two names, by difflib: a letter too many, too few or another one in most names.
_CLOSE = 0.9
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
    if not stat.S_ISREG(mode):
        return "it is no regular file"
    with suppress(OSError, UnicodeError), Path(file).open(encoding=ENCODING) as opened:
        for line in parse_stream(opened):
            if line.error:
                return f"line {line.original.line} has no form such as NAME=value"
    return None


def misspelt_names(names: Collection[str], file: Path = ENV_FILE) -> list[tuple[str, str]]:
    """The names in `.env` that are nearly those of settings, each with what may be meant.

    Others may be for other programs, such as OpenTelemetry's. `names` are those of settings, in
    lower case.
    """
    given = [name.lower() for name in dotenv_values(file, encoding=ENCODING)]
    close = {
        name: get_close_matches(name, names, n=1, cutoff=_CLOSE)
        for name in given
        if name not in names and not name.startswith("otel_")
    }
    return [(name.upper(), found[0].upper()) for name, found in close.items() if found]


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
