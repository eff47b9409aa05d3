"""Records of runs: figures, command, machine, versions and commit."""

from __future__ import annotations

import json
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from core.paths import ROOT
from loadtest.bench.summary import Row, summarise
from loadtest.bench.targets import TARGETS
from runners.cpu import cpu_flags, usable_cpus

# The CPU features that engines use.
_FLAGS = (  # noqa: SIM905  a list of words reads worse
    "avx2 fma avx512f avx512bw avx512_vnni avx512_bf16 avx_vnni amx_tile amx_int8 amx_bf16 "
    "asimddp i8mm bf16 sve"
).split()
_PACKAGES = (  # noqa: SIM905
    "bentoml torch transformers tokenizers onnxruntime openvino nncf numpy redis asyncpg "
    "sqlalchemy uvicorn uvloop httptools fastapi litserve"
).split()


def command_line() -> str:
    """The command of this process, as a user types it."""
    program = Path(sys.argv[0])
    name = program.name if program.suffix != ".py" else f"python -m scripts.{program.stem}"
    return " ".join([name, *map(shlex.quote, sys.argv[1:])])


def write_figures(path: Path, figures: Mapping[str, Any]) -> None:
    """Write the figures of one benchmark as JSON, with date, command and machine."""
    run = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": command_line(),
        "machine": f"{usable_cpus()} cores, {platform.machine()}",
    }
    path.write_text(json.dumps({**run, **figures}, indent=1) + "\n")


def make_record(rows: Sequence[Row], command: str) -> dict[str, Any]:
    """The record of `sentiment bench`: rows, their summary, and the required figures."""
    summary = summarise(rows)
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "versions": _versions(),
        "targets": [target.evaluate(summary) for target in TARGETS],
        "summary": summary,
        "rows": list(rows),
    }


def as_json(record: dict[str, Any]) -> str:
    """Indented JSON, with every measured row on one line."""
    without_rows = json.dumps(_rounded({**record, "rows": []}), indent=1)
    rows = ",\n".join(f"  {json.dumps(_rounded(row))}" for row in record["rows"])
    return without_rows.replace('"rows": []', f'"rows": [\n{rows}\n ]') + "\n"


def _rounded(value: Any) -> Any:
    """Round floats to four significant digits, or to an integer from 1,000 on."""
    match value:
        case float():
            return round(value) if abs(value) >= 1_000 else float(f"{value:.4g}")
        case dict():
            return {key: _rounded(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_rounded(inner) for inner in value]
        case _:
            return value


def commit() -> str:
    """The checkout's commit, and whether the working tree differs from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.strip()

    try:
        head = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head} with changes" if changed else head


def machine() -> dict[str, Any]:
    """The CPU and system of this machine."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    available = cpu_flags()
    return {
        "cpu": _line(text, "model name") or platform.processor() or platform.machine(),
        "cpu_family_and_model": f"{_line(text, 'cpu family')}/{_line(text, 'model')}",
        "cores": usable_cpus(),
        "flags": [flag for flag in _FLAGS if flag in available],
        "system": f"{platform.system()} {platform.machine()}",
    }


def _line(cpuinfo: str, name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return found[1] if found else ""


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
