"""Commands in the process of the tests: one of their own imports for longer than it works."""

from __future__ import annotations

import io
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import pytest

from core.settings import get_settings


class Ended(NamedTuple):
    """How a command ended, as `subprocess.run` tells it."""

    returncode: int
    stdout: str
    stderr: str


def run_here(module: str, *arguments: str, **environment: str) -> Ended:
    """Do what `python -m MODULE ARGUMENTS` does, with variables beside those of this process."""
    output, errors = io.StringIO(), io.StringIO()
    get_settings.cache_clear()
    with pytest.MonkeyPatch.context() as own:
        for name, value in environment.items():
            own.setenv(name, value)
        own.setattr(sys, "argv", [module, *arguments])
        own.delitem(sys.modules, module, raising=False)
        code: object = 0
        with redirect_stdout(output), redirect_stderr(errors):
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except SystemExit as end:
                code = end.code or 0
    get_settings.cache_clear()
    if not isinstance(code, int):
        # Python prints what an end says that is no number, and ends with 1.
        errors.write(f"{code}\n")
        code = 1
    return Ended(code, output.getvalue(), errors.getvalue())
