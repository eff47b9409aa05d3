"""Where Prometheus and Alertmanager and their tools are: on the PATH, or out of Debian's packages.

`python -m scripts.monitoring_tools` checks the rules, their tests, and both configurations.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import typer
from filelock import FileLock
from rich.console import Console

from core.paths import ROOT

Tool = Literal["prometheus", "promtool", "alertmanager", "amtool"]
MONITORING = ROOT / "monitoring"
# Beside the Python that runs this: a virtual environment that goes away takes them with it.
UNPACKED = Path(sys.prefix) / "share" / "monitoring-tools"
PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
}
# Debian's alertmanager goes by another name.
NAMES = {"alertmanager": "prometheus-alertmanager"}
console = Console(highlight=False)


class ToolMissing(RuntimeError):
    """It is not there, and cannot be fetched."""


def tool(name: Tool) -> Path:
    """The program, fetched if need be.

    Raises:
        ToolMissing: says what to install.
    """
    for known_as in {name, NAMES.get(name, name)}:
        if found := shutil.which(known_as):
            return Path(found)
    program = UNPACKED / "usr" / "bin" / NAMES.get(name, name)
    if not program.exists():
        UNPACKED.mkdir(parents=True, exist_ok=True)
        with FileLock(UNPACKED / "lock"):
            if not program.exists():
                _unpack(PACKAGES[name])
    return program


def _unpack(package: str) -> None:
    if shutil.which("apt-get") is None:
        raise ToolMissing(f"install {package}: there is no apt-get to fetch it with")
    with tempfile.TemporaryDirectory() as folder, console.status(f"fetching {package}"):
        if not _downloads(package, folder):
            subprocess.run(["apt-get", "update", "-q"], check=False, capture_output=True)
            if not _downloads(package, folder):
                raise ToolMissing(f"install {package}: apt-get cannot download it")
        for archive in Path(folder).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", archive, UNPACKED], check=True)


def _downloads(package: str, folder: str) -> bool:
    command = ["apt-get", "download", "-q", package]
    return subprocess.run(command, cwd=folder, check=False, capture_output=True).returncode == 0


def check() -> int:
    """Every check; the number of those that failed."""
    rules = sorted((MONITORING / "rules").glob("*.yml"))
    tests = sorted((MONITORING / "rules" / "tests").glob("*.yml"))
    commands: list[Sequence[Path | str]] = [
        (tool("promtool"), "check", "config", "--syntax-only", MONITORING / "prometheus.yml"),
        (tool("promtool"), "check", "rules", "--lint=all", "--lint-fatal", *rules),
        (tool("promtool"), "test", "rules", *tests),
        (tool("amtool"), "check-config", MONITORING / "alertmanager.yml"),
    ]
    return sum(subprocess.run(command, check=False).returncode != 0 for command in commands)


def main() -> None:
    try:
        failed = check()
    except ToolMissing as error:
        console.print(f"[red]{error}[/]")
        raise typer.Exit(2) from error
    raise typer.Exit(1 if failed else 0)


if __name__ == "__main__":
    typer.run(main)
