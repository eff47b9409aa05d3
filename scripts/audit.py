"""Looks every pinned package up in the advisories that pip-audit reads; says if it could not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from core.paths import ROOT

REQUIREMENTS = ROOT / "requirements"
TIMEOUT_SECONDS = 120


def main() -> int:
    """1 if a package has a known vulnerability; 0 if none has, or no advisories can be reached."""
    audited, vulnerable = 0, []
    for lock in sorted(REQUIREMENTS.glob("*.lock")):
        packages = [package for package in _report(lock) if "vulns" in package]
        if not packages:  # the others would ask in vain, package by package
            break
        audited += len(packages)
        vulnerable += [
            f"{lock.name}: {package['name']} {package['version']}: {fault['id']}"
            for package in packages
            for fault in package["vulns"]
        ]
    if not audited:
        print("no advisory source can be reached: nothing was audited")
    else:
        print("\n".join(vulnerable) or f"no known vulnerability in {audited} packages")
    return 1 if vulnerable else 0


def _report(lock: Path) -> list[dict[str, Any]]:
    """What pip-audit says of each package of `lock`; nothing if it could not ask."""
    command = [
        sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--disable-pip", "--no-deps",
        "--format", "json", "--progress-spinner", "off", "--timeout", "10",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError):
        return []
    return packages


if __name__ == "__main__":
    raise SystemExit(main())
