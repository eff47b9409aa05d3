"""Installs torch and the packages around it when something first needs them.

Serving and the starter models do without; importing a checkpoint, training and tests do not.
"""

from __future__ import annotations

import sys
from pathlib import Path

from core.command_output import note
from core.late_packages import (
    REQUIREMENTS,
    PackagesUnavailable,
    install_lock,
    missing_pins,
    run_pip,
    run_uv,
)

# As Linux on x86 downloads them.
_DOWNLOAD_MB = 220


def ensure_torch_packages(folder: Path = REQUIREMENTS, index: str | None = None) -> None:
    """Install what torch.txt and torch.lock in `folder` pin, unless it is installed.

    torch comes as a CPU build: from `index` if given, else from pip's own index or pytorch.org.

    Raises:
        PackagesUnavailable: a package is missing and cannot be installed.
    """
    lock = folder / "torch.lock"
    torch, others = missing_pins(folder / "torch.txt"), missing_pins(lock)
    if not torch and not others:
        return
    names = " and ".join(
        [*(pin.name for pin in torch), *([f"{len(others)} packages"] if others else [])]
    )
    size = f", about {_DOWNLOAD_MB} MB" if torch else ""
    note(f"installing {names} for importing, training or tests{size}")
    for pin in torch:
        install_torch(str(pin), index)
    install_lock(lock)


def install_torch(pin: str, index: str | None = None, python: str = sys.executable) -> None:
    """Install a CPU build of torch, which has the local version "cpu" except on macOS.

    It goes into the environment of `python`.

    Raises:
        PackagesUnavailable: it cannot be installed.
    """
    build = pin if sys.platform == "darwin" else f"{pin}+cpu"
    pip = run_pip(*(["--index-url", index] if index else []), build, python=python)
    if pip.returncode == 0:
        return
    if index:
        raise PackagesUnavailable(f"{index} has no {build} for this machine:\n{pip.stderr.strip()}")
    note("pip's index has no CPU build of torch; fetching it from pytorch.org")
    if not run_uv("--torch-backend", "cpu", pin, python=python):
        raise PackagesUnavailable(
            f"{build} cannot be installed. `sentiment install-torch --index URL` takes it from "
            "another index."
        )
