"""A virtual environment for the package of another system's client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.run import killed_temporary_folder

PROGRAMS = Path(__file__).parent / "programs"
OLDEST_MINOR = 10


def newest_python(newest_minor: int) -> str:
    """The newest Python on the path that is not past 3.`newest_minor`."""
    for minor in range(newest_minor, OLDEST_MINOR - 1, -1):
        try:
            subprocess.run([f"python3.{minor}", "-c", ""], check=True, capture_output=True)
        except (FileNotFoundError, subprocess.CalledProcessError):
            continue
        return f"python3.{minor}"
    raise LookupError(f"there is no python3.{OLDEST_MINOR} to python3.{newest_minor} on the path")


def make_environment(folder: Path, packages: Sequence[str], interpreter: str) -> Path:
    """Install `packages` into a new environment of an interpreter; its Python."""
    subprocess.run([interpreter, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "pip", "install", "-q", "--python", python, *packages], check=True)
    return python


def run_program(python: Path, name: str, url: str) -> dict[str, Any]:
    """What a program of `PROGRAMS` saw of the service at `url`."""
    done = subprocess.run(
        [python, PROGRAMS / f"{name}_client.py", url],
        # SageMaker's local mode asks `docker info`, wherever that is, and fails without a docker.
        env={"PATH": os.environ["PATH"], "HOME": killed_temporary_folder()},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    # SageMaker shows its exceptions on stdout.
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen
