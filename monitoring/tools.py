"""Find Prometheus, Alertmanager and their tools, and check the configuration with them.

A tool comes from the PATH, or else out of its Debian package, which apt-get downloads.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from filelock import FileLock
from rich.console import Console

from core.paths import ROOT

Tool = Literal["prometheus", "promtool", "alertmanager", "amtool"]
MONITORING = ROOT / "monitoring"
# In the virtual environment, so that removing it removes them.
UNPACKED = Path(sys.prefix) / "share" / "monitoring-tools"
# Debian's package of each tool, and the name of the program there.
PACKAGES: dict[Tool, tuple[str, str]] = {
    "prometheus": ("prometheus", "prometheus"),
    "promtool": ("prometheus", "promtool"),
    "alertmanager": ("prometheus-alertmanager", "prometheus-alertmanager"),
    "amtool": ("prometheus-alertmanager", "amtool"),
}
console = Console(highlight=False)


class ToolMissing(RuntimeError):
    """A tool is neither installed nor to be downloaded."""


def tool(name: Tool) -> Path:
    """The path of a program, downloaded if it is not installed.

    Raises:
        ToolMissing: the message names the package to install.
    """
    package, debian_name = PACKAGES[name]
    if found := shutil.which(name) or shutil.which(debian_name):
        return Path(found)
    program = UNPACKED / "usr" / "bin" / debian_name
    UNPACKED.mkdir(parents=True, exist_ok=True)
    with FileLock(UNPACKED / "lock"):
        if not program.exists():
            _unpack(package)
    return program


def _unpack(package: str) -> None:
    if shutil.which("apt-get") is None:
        raise ToolMissing(f"install {package}: there is no apt-get to download it with")
    with tempfile.TemporaryDirectory() as folder, console.status(f"downloading {package}"):
        if not _downloads(package, folder):
            subprocess.run(["apt-get", "update", "-q"], check=False, capture_output=True)
            if not _downloads(package, folder):
                raise ToolMissing(f"install {package}: apt-get cannot download it")
        for archive in Path(folder).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", archive, UNPACKED], check=True)


def _downloads(package: str, folder: str) -> bool:
    command = ["apt-get", "download", "-q", package]
    return subprocess.run(command, cwd=folder, check=False, capture_output=True).returncode == 0


def check_configuration() -> int:
    """Check rules, their tests and both configurations; return the number of failed checks."""
    rules = sorted((MONITORING / "rules").glob("*.yml"))
    tests = sorted((MONITORING / "rules" / "tests").glob("*.yml"))
    commands: list[Sequence[Path | str]] = [
        (tool("promtool"), "check", "config", "--syntax-only", MONITORING / "prometheus.yml"),
        (tool("promtool"), "check", "rules", "--lint=all", "--lint-fatal", *rules),
        (tool("promtool"), "test", "rules", *tests),
        (tool("amtool"), "check-config", MONITORING / "alertmanager.yml"),
    ]
    return sum(subprocess.run(command, check=False).returncode != 0 for command in commands)
