"""Look every pinned package up in the advisories of pip-audit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import typer

from core.command_output import JsonOption, emit
from core.paths import ROOT
from scripts.running import run_command

REQUIREMENTS = ROOT / "requirements"
TIMEOUT_SECONDS = 120


def main(*, as_json: JsonOption = False) -> None:
    """Exit with 1 if a pinned package has a known vulnerability, or some cannot be audited.

    Where no advisories can be reached at all, say so and exit with 0.
    """
    audited, vulnerable, unaudited = 0, [], []
    for lock in sorted(REQUIREMENTS.glob("*.lock")):
        packages = [package for package in _report(lock) if "vulns" in package]
        if not packages:
            unaudited.append(lock.name)
            if audited:
                continue
            break  # no advisories can be reached, and pip-audit would ask for each package
        audited += len(packages)
        vulnerable += [
            f"{lock.name}: {package['name']} {package['version']}: {vulnerability['id']}"
            for package in packages
            for vulnerability in package["vulns"]
        ]
    found = "\n".join(vulnerable) or f"no known vulnerability in {audited} packages"
    if not audited:
        found = "no advisory source can be reached: nothing was audited"
    elif unaudited:
        found += f"\nnot audited, for pip-audit says nothing of them: {', '.join(unaudited)}"
    facts = {"audited_packages": audited, "vulnerable": vulnerable, "unaudited": unaudited}
    emit(facts, lambda: print(found))
    raise typer.Exit(1 if vulnerable or (audited and unaudited) else 0)


def _report(lock: Path) -> list[dict[str, Any]]:
    """pip-audit's report on each package of `lock`; empty if it reached no advisories."""
    command = [
        sys.executable, "-P", "-m", "pip_audit", "--requirement", str(lock), "--disable-pip",
        "--no-deps", "--format", "json", "--progress-spinner", "off", "--timeout", "10",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", timeout=TIMEOUT_SECONDS, check=False
        )
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError):
        return []
    return packages


if __name__ == "__main__":
    run_command(main)
