"""Running a typer command, as `sentiment NAME` and `python -m scripts.NAME` do."""

from __future__ import annotations

import io
import os
import signal
import stat
import sys
from collections.abc import Callable
from typing import Any

import typer

from core.command_output import ClosedStream
from core.signals import undo_inherited_signals
from scripts.failures import failures_as_lines


def run_command(command: typer.Typer | Callable[..., Any], prog_name: str | None = None) -> None:
    """Run a command with the arguments of this process; its failure is one line."""
    undo_inherited_signals()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _open_closed_streams()
    _keep_from_others()
    if os.environ.get("COLUMNS") == "0":
        del os.environ["COLUMNS"]  # rich would print nothing into so narrow a terminal
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without UTF-8 gets what it can show.
            stream.reconfigure(errors="backslashreplace")
    try:
        with failures_as_lines():
            if isinstance(command, typer.Typer):
                command(prog_name=prog_name)
            else:
                typer.run(command)
    finally:
        _flush()


def _keep_from_others() -> None:
    """Make no file that every user of the machine may write, whatever the umask.

    Whoever changed the file of a model would end its runner.
    """
    os.umask(os.umask(0o077) | stat.S_IWOTH)


def _open_closed_streams() -> None:
    """Make those of the standard streams /dev/null that were closed, as `>&-` has it.

    Python has None for them, and the next file that is opened gets the number of one: what another
    library or a child writes to it would come into that file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            # Of a file that was opened meanwhile the number stays.
            is_free = null == number
            os.set_inheritable(null, is_free)
            opened = open(null, "wb" if number else "rb", closefd=False)  # noqa: SIM115
            setattr(sys, name, ClosedStream(opened, encoding="utf-8"))


def _flush() -> None:
    """Write what is buffered, here: at its end Python would print a traceback of a failure."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            # `| head` has read enough.
            is_pipe = isinstance(error, BrokenPipeError)
            reason = 1 if is_pipe else f"the output cannot be written: {error.strerror}"
            raise SystemExit(reason) from None
