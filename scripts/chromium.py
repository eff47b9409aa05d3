"""Finds Chromium on the PATH, or installs Debian's as root."""

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
    """The path of Chromium.

    Raises:
        RuntimeError: it is neither installed nor can be; the message says what to do.
    """
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None and os.getuid() == 0 and shutil.which("apt-get"):
        for arguments in (["update", "-qq"], ["install", "-y", "-qq", "chromium"]):
            subprocess.run(
                ["apt-get", *arguments], check=True, timeout=INSTALL_SECONDS, capture_output=True
            )
        found = shutil.which("chromium")
    if found is None:
        raise RuntimeError("install the package chromium, which displays the dashboard")
    return found
