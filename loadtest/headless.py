"""Runs locust in a process of its own, and reads what it measured.

locust is never imported elsewhere: it replaces what the whole of Python waits with.
"""

from __future__ import annotations

import subprocess
import sys
from enum import StrEnum
from pathlib import Path

from core.paths import ROOT
from loadtest.outcome import Outcome

LOCUSTFILE = ROOT / "loadtest" / "locustfile.py"
# The environment variable of the API keys, with commas between them.
KEYS = "LOADTEST_API_KEYS"
REPORT, FIGURES = "report.html", "figures.json"
MAX_USERS = 1_000
MAX_SECONDS = 3_600.0
# For the answers under way at the end; then locust's own start and end.
_STOP_SECONDS = 40
_SPARE_SECONDS = 60.0


class Loop(StrEnum):
    closed = "closed"
    open = "open"


class Shape(StrEnum):
    constant = "constant"
    steps = "steps"
    spike = "spike"


class LocustFailed(RuntimeError):
    """locust ended without figures; the message ends with its output."""


def run_locust(
    host: str,
    *,
    users: int,
    seconds: float,
    folder: Path,
    loop: Loop = Loop.closed,
    shape: Shape = Shape.constant,
) -> Outcome:
    """Send the load of locustfile.py; REPORT and FIGURES go to `folder`.

    Raises:
        LocustFailed: it could not run, or did not end.
        ValueError: past the bounds of this module.
    """
    if not (0 < users <= MAX_USERS and 1 <= seconds <= MAX_SECONDS):
        raise ValueError(f"at most {MAX_USERS} users and 1 to {MAX_SECONDS:.0f} s")
    folder.mkdir(parents=True, exist_ok=True)
    figures, log = folder / FIGURES, folder / "locust.log"
    command = [
        sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), "--headless",
        "--host", host.rstrip("/"), "--users", str(users), "--run-time", f"{seconds:.0f}s",
        "--stop-timeout", str(_STOP_SECONDS), "--loop", loop, "--shape", shape,
        "--html", str(folder / REPORT), "--figures", str(figures),
        "--only-summary", "--loglevel", "WARNING", "--logfile", str(log),
    ]  # fmt: skip
    for old in (figures, log):
        old.unlink(missing_ok=True)
    try:
        run = subprocess.run(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=seconds + _STOP_SECONDS + _SPARE_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise LocustFailed(f"no end after {error.timeout:.0f} s") from error
    output = log.read_text(encoding="utf-8") if log.is_file() else ""
    # locust exits with 1 after failed requests.
    if run.returncode not in (0, 1) or not figures.is_file():
        raise LocustFailed(f"status {run.returncode}: {output}{run.stderr}"[-2000:])
    sys.stderr.write(output)
    outcome = Outcome.read(figures)
    if outcome.ok != (run.returncode == 0):
        raise LocustFailed(f"status {run.returncode}, though its figures say otherwise: {output}")
    return outcome
