"""Installs packages that few commands need, when one of those commands first runs."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

from core.command_output import note
from core.paths import ROOT

REQUIREMENTS = ROOT / "requirements"
STDERR = 2  # stdout is for the result of the command, which may be a file of rows


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
        note(f"installing {names} for {purpose}, about {megabytes} MB")
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
    command = [*uv_command(), "pip", "install", "--python", python]
    command += ["--no-deps", *options]
    return subprocess.run(command, stdout=STDERR, check=False).returncode == 0


def uv_command() -> list[str]:
    """uv, which takes neither code nor configuration from the current folder."""
    return [*_module("uv"), *_uv_configuration()]


def run_pip(*options: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    """Install with pip, which reads its own configuration and shows its progress."""
    command = [*_module("pip"), "--python", python]
    command += ["install", "--no-deps", "--retries", "1", *options]
    return subprocess.run(
        command, stdout=STDERR, stderr=subprocess.PIPE, encoding="utf-8", check=False
    )


def _module(name: str) -> list[str]:
    """A command that runs an installed module, and none of the same name in the current folder."""
    return [sys.executable, "-P", "-m", name]


def _uv_configuration() -> list[str]:
    """The options that make uv read the user's or the system's configuration, and no other.

    By itself it also reads that of the current folder and of each one above. Whoever can write
    there could name a cache with packages of their own in it.
    """
    user = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    if not user.is_absolute():  # it would lie in the current folder
        user = Path("~/.config").expanduser()
    for file in (user / "uv" / "uv.toml", Path("/etc/uv/uv.toml")):
        if file.is_file():
            return ["--config-file", str(file)]
    return ["--no-config"]


def _is_meant(pin: Requirement) -> bool:
    return pin.marker is None or pin.marker.evaluate()


def _is_installed(pin: Requirement) -> bool:
    try:
        return pin.specifier.contains(version(pin.name), prereleases=True)
    except PackageNotFoundError:
        return False
