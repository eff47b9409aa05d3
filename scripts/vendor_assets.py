"""Fetch the dashboard's chart library with npm, as its lock file pins it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from rich.console import Console

from core.paths import ROOT
from scripts.running import run_command

DASHBOARD = ROOT / "web" / "dashboard"
SERVED = DASHBOARD / "static" / "vendor"
# Only the tests use axe-core.
FOR_TESTS = DASHBOARD / "test-vendor"
FILES = {
    "uplot/dist/uPlot.esm.js": SERVED,
    "uplot/dist/uPlot.min.css": SERVED,
    "uplot/LICENSE": SERVED,
    "axe-core/axe.min.js": FOR_TESTS,
}
STAMP = SERVED / ".done"
SECONDS = 120
console = Console(highlight=False)


def main() -> None:
    """Fetch the dashboard's chart library with npm; without npm it shows numbers and no charts."""
    npm = shutil.which("npm")
    if npm is None:
        console.print("npm is not installed: the dashboard shows no charts until `make assets` ran")
        return
    with (
        console.status("fetching the dashboard's chart library"),
        tempfile.TemporaryDirectory() as build,
    ):
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(DASHBOARD / name, build)
        try:
            done = subprocess.run(
                [npm, "ci"],
                cwd=build,
                capture_output=True,
                encoding="utf-8",
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            console.print("npm's registry does not answer; the dashboard shows no charts")
            return
        if done.returncode:
            console.print(f"npm failed; the dashboard shows no charts:\n{done.stderr}")
            return
        for file, folder in FILES.items():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(build) / "node_modules" / file, folder)
    STAMP.touch()


if __name__ == "__main__":
    run_command(main)
