"""Records of runs: figures, command, machine, versions and commit."""

from __future__ import annotations

import json
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from core.command_output import emit
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
    "bentoml torch transformers tokenizers onnxruntime openvino numpy redis asyncpg "
    "sqlalchemy uvicorn uvloop httptools fastapi litserve"
).split()

RecordOption = Annotated[Path | None, typer.Option("--record", help="a JSON file for the figures")]


def command_line() -> str:
    """The command of this process, as a user types it."""
    program = Path(sys.argv[0])
    name = (
        program.name if program.suffix != ".py" else f"sentiment {program.stem.replace('_', '-')}"
    )
    return " ".join([name, *map(shlex.quote, sys.argv[1:])])


def write_figures(path: Path | None, figures: Mapping[str, Any]) -> None:
    """Write the figures of one benchmark, and how they were measured, to a file and to --json."""
    record = {**_run(command_line()), **figures}
    if path is not None:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    emit(record)


def make_record(rows: Sequence[Row], command: str) -> dict[str, Any]:
    """The record of `sentiment bench`: rows, their summary, and the required figures."""
    summary = summarise(rows)
    targets = [target.evaluate(summary) for target in TARGETS]
    return {**_run(command), "targets": targets, "summary": summary, "rows": list(rows)}


def _run(command: str) -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "versions": versions,
    }


def as_json(record: dict[str, Any]) -> str:
    """Indented JSON, with every measured row on one line."""
    without_rows = json.dumps(_rounded({**record, "rows": []}), indent=1)
    rows = ",\n".join(f"  {json.dumps(_rounded(row))}" for row in record["rows"])
    return without_rows.replace('"rows": []', f'"rows": [\n{rows}\n ]') + "\n"


def _rounded(value: Any) -> Any:
    """Round floats to four significant digits, or to an integer from 1,000 on."""

    def rounded(digits: str) -> float:
        number = float(digits)
        return round(number) if abs(number) >= 1_000 else float(f"{number:.4g}")

    return json.loads(json.dumps(value), parse_float=rounded)


def commit(record: Path | None = None) -> str:
    """The checkout's commit, and whether the working tree differs from it.

    A `record` that the caller adds to is no difference.
    """
    ignored = [f":(exclude){record.relative_to(ROOT)}"] if record else []

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, check=True, capture_output=True, encoding="utf-8"
        ).stdout.strip()

    try:
        head = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *ignored)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head} with changes" if changed else head


def machine() -> dict[str, Any]:
    """The CPU and system of this machine."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.is_file() else ""
    cpu = dict(re.findall(r"^(.+?)\s*:\s*(.*)$", text, re.MULTILINE))
    available = cpu_flags()
    return {
        "cpu": cpu.get("model name") or platform.processor() or platform.machine(),
        "cpu_family_and_model": f"{cpu.get('cpu family', '')}/{cpu.get('model', '')}",
        "cores": usable_cpus(),
        "flags": [flag for flag in _FLAGS if flag in available],
        "system": f"{platform.system()} {platform.machine()}",
    }
