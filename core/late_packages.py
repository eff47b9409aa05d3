"""Installs packages that few commands need, when one of those commands first runs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement
from rich.console import Console

from core.paths import ROOT

REQUIREMENTS = ROOT / "requirements"
console = Console(highlight=False, emoji=False)


class PackagesUnavailable(RuntimeError):
    """Packages that a command needs cannot be installed."""


def missing_pins(file: Path) -> list[Requirement]:
    """The requirements that a file pins for this machine and that are not installed.

    Raises:
        PackagesUnavailable: there is no such file, as in an image.
    """
    if not file.is_file():
        raise PackagesUnavailable(f"{file}, which pins packages that are needed here, is missing")
    pins = [
        Requirement(line.rstrip("\\ "))
        for line in file.read_text(encoding="utf-8").splitlines()
        if "==" in line and not line.startswith((" ", "#"))
    ]
    return [pin for pin in pins if _is_meant(pin) and not _is_installed(pin)]


def ensure_packages(lock: Path, purpose: str, megabytes: int) -> None:
    """Install what a lock file pins, unless it is installed; say why, and how much it downloads.

    Raises:
        PackagesUnavailable: a package is missing and cannot be installed.
    """
    if missing := missing_pins(lock):
        names = missing[0].name if len(missing) == 1 else f"{len(missing)} packages"
        console.print(f"installing {names} for {purpose}, about {megabytes} MB")
        install_lock(lock)


def install_lock(lock: Path) -> None:
    """Install what a lock file pins.

    Raises:
        PackagesUnavailable: a package cannot be installed.
    """
    if not run_uv("--require-hashes", "-r", str(lock)):
        raise PackagesUnavailable(f"the packages that {lock} pins cannot be installed")
    importlib.invalidate_caches()


def run_uv(*options: str, python: str = sys.executable) -> bool:
    """Whether uv, which shows its progress, could install into the environment of `python`."""
    command = [sys.executable, "-m", "uv", "pip", "install", "--python", python]
    return subprocess.run([*command, "--no-deps", *options], check=False).returncode == 0


def run_pip(*options: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    """Install with pip, which reads its own configuration and shows its progress."""
    command = [sys.executable, "-m", "pip", "--python", python]
    command += ["install", "--no-deps", "--retries", "1", *options]
    return subprocess.run(command, stderr=subprocess.PIPE, encoding="utf-8", check=False)


def _is_meant(pin: Requirement) -> bool:
    return pin.marker is None or pin.marker.evaluate()


def _is_installed(pin: Requirement) -> bool:
    try:
        return pin.specifier.contains(version(pin.name), prereleases=True)
    except PackageNotFoundError:
        return False
