"""Installs torch and the packages around it when something first needs them.

Serving and the starter models do without; importing a checkpoint, training and tests do not.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement
from rich.console import Console

from core.paths import ROOT

_REQUIREMENTS = ROOT / "requirements"
# As Linux on x86 downloads them.
_DOWNLOAD_MB = 260
_console = Console(highlight=False)


class TorchUnavailable(RuntimeError):
    """Torch, or a package around it, cannot be installed."""


def ensure_torch_packages(folder: Path = _REQUIREMENTS, index: str | None = None) -> None:
    """Install what torch.txt and torch.lock in `folder` pin, unless it is installed.

    torch comes as a CPU build: from `index` if given, else from pip's own index or pytorch.org.

    Raises:
        TorchUnavailable: a package is missing and cannot be installed.
    """
    torch, lock = folder / "torch.txt", folder / "torch.lock"
    if not lock.is_file():
        raise TorchUnavailable(f"torch is needed here, and {folder} does not say which one")
    missing = [pin for pin in (*_pins(torch), *_pins(lock)) if not _is_installed(pin)]
    if not missing:
        return
    _console.print(f"installing torch and {len(missing) - 1} packages, about {_DOWNLOAD_MB} MB")
    for pin in _pins(torch):
        if pin in missing:
            _install_torch(str(pin), index)
    if not _uv("--require-hashes", "-r", str(lock)):
        raise TorchUnavailable(f"the packages that {lock} pins cannot be installed")
    importlib.invalidate_caches()


def _pins(file: Path) -> Iterator[Requirement]:
    """The requirements that a file pins for this machine."""
    for line in file.read_text().splitlines():
        if "==" in line and not line.startswith((" ", "#")):
            requirement = Requirement(line.rstrip("\\ "))
            if requirement.marker is None or requirement.marker.evaluate():
                yield requirement


def _is_installed(pin: Requirement) -> bool:
    try:
        return pin.specifier.contains(version(pin.name), prereleases=True)
    except PackageNotFoundError:
        return False


def _install_torch(pin: str, index: str | None) -> None:
    """Install a CPU build of torch, which has the local version "cpu" except on macOS."""
    build = pin if sys.platform == "darwin" else f"{pin}+cpu"
    where = ["--index-url", index] if index else []
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--retries", "1", *where, build],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if pip.returncode == 0:
        return
    if index:
        raise TorchUnavailable(f"{index} has no {build} for this machine:\n{pip.stderr.strip()}")
    _console.print("pip's index has no CPU build of torch; fetching it from pytorch.org")
    if not _uv("--torch-backend", "cpu", pin):
        raise TorchUnavailable(
            f"{build} cannot be installed. `sentiment install-torch --index URL` takes it from "
            "another index."
        )


def _uv(*options: str) -> bool:
    """Whether uv, which shows its progress, could install."""
    command = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable]
    return subprocess.run([*command, "--no-deps", *options], check=False).returncode == 0
