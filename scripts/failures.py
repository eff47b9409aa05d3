"""The line that a command prints instead of a traceback.

What reads the settings and looks at the machine is imported by a failure: it is half of what a
command's `--help` would import.
"""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.command_output import CommandFailed
from core.errors import describe_error


@contextmanager
def failures_as_lines() -> Iterator[None]:
    """End the process with a line, not with a traceback, if the command fails."""
    try:
        yield
    except Exception as error:
        raise SystemExit(failure_line(error)) from error


def failure_line(error: Exception) -> str:
    """Describe why a command failed; what nobody expected gets a file with the traceback."""
    from core.settings import SettingsError

    # BentoML's own are about its configuration: what it finds wrong in a model is caught.
    is_told = isinstance(error, SettingsError | CommandFailed)
    is_told = is_told or type(error).__module__.startswith("bentoml.")
    if is_told and str(error):
        return str(error)
    if isinstance(error, OSError) and (line := os_error_line(error)):
        return line
    line = f"failed: {describe_error(error)}"
    try:
        # Only its owner may read it.
        with tempfile.NamedTemporaryFile(
            "w",
            encoding="utf-8",
            errors="backslashreplace",
            prefix="sentiment-",
            suffix=".log",
            delete=False,
        ) as file:
            file.writelines(traceback.format_exception(error))
    except OSError:
        return line
    return (
        f"{line}\nThis is a fault of this program. {file.name} has the traceback; please report it."
    )


def os_error_line(error: OSError) -> str | None:
    """Describe an error of the system by its file; None: it has neither a file nor a reason."""
    from serving.folder_check import bentoml_home_problem, temporary_folder_problem

    # A file may be the number of one that is open.
    file = None if isinstance(error.filename, int) else error.filename
    cause = None
    if error.filename is None or (file is not None and _is_in_bentoml_home(os.fsdecode(file))):
        # The folder of BentoML is made wherever BentoML is first used.
        cause = bentoml_home_problem() or temporary_folder_problem()
    name = os.fsdecode(file) if file else "failed"
    reason = f"{name}: {error.strerror}" if error.strerror else None
    return cause or reason


def _is_in_bentoml_home(file: str) -> bool:
    from serving.folder_check import bentoml_home

    try:
        home = bentoml_home()
    except RuntimeError:
        # It is in the home folder of a user who has none.
        return True
    return home is None or Path(file).absolute().is_relative_to(home.absolute())
