"""A real Chromium: the one on the PATH, or Debian's, which root installs."""

from __future__ import annotations

import os
import shutil
import subprocess

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
INSTALL_SECONDS = 300


def chromium() -> str:
    """Where it is.

    Raises:
        RuntimeError: it is not there and cannot be installed; says what to do.
    """
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None and os.getuid() == 0 and shutil.which("apt-get"):
        for arguments in (["update", "-qq"], ["install", "-y", "-qq", "chromium"]):
            subprocess.run(
                ["apt-get", *arguments], check=True, timeout=INSTALL_SECONDS, capture_output=True
            )
        found = shutil.which("chromium")
    if found is None:
        raise RuntimeError("the tests of the dashboard need Chromium: install the package chromium")
    return found
