"""The line that a command prints instead of a traceback."""

from __future__ import annotations

import tempfile
import traceback

from core.errors import describe_error
from core.settings import SettingsError
from serving.machine_check import bentoml_home_problem, temporary_folder_problem


def failure_line(error: Exception) -> str:
    """Describe why a command failed; what nobody expected gets a file with the traceback."""
    # BentoML's own are about its configuration: what it finds wrong in a model is caught.
    is_told = isinstance(error, SettingsError) or type(error).__module__.startswith("bentoml.")
    if is_told and str(error):
        return str(error)
    if isinstance(error, OSError):
        # The folder of BentoML is made wherever BentoML is first used.
        cause = bentoml_home_problem() or temporary_folder_problem()
        if cause or error.strerror:
            return cause or f"{error.filename or 'failed'}: {error.strerror}"
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
