"""Brings what the dashboard needs of others' scripts out of npm packages, as its lock pins them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from rich.console import Console

from core.paths import ROOT

DASHBOARD = ROOT / "web" / "dashboard"
SERVED = DASHBOARD / "static" / "vendor"
# axe-core, which the tests alone look at the page with.
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
    """Without npm the dashboard has its numbers and no charts, and all else is as ever."""
    npm = shutil.which("npm")
    if npm is None:
        console.print("npm is not here: the dashboard shows no charts until `make assets` has run")
        return
    with (
        console.status("fetching the dashboard's chart library"),
        tempfile.TemporaryDirectory() as at,
    ):
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(DASHBOARD / name, at)
        try:
            done = subprocess.run(
                [npm, "ci"], cwd=at, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            console.print("npm's registry does not answer; the dashboard shows no charts")
            return
        if done.returncode:
            console.print(f"npm could not fetch it; the dashboard shows no charts:\n{done.stderr}")
            return
        for file, folder in FILES.items():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(at) / "node_modules" / file, folder)
    STAMP.touch()


if __name__ == "__main__":
    main()
