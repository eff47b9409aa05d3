"""The memory that scoring a file takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from core.paths import ROOT
from datafiles.formats import Format
from tests.unit.scoring.score_rows import write_rows

# The first has all chunks that are in memory at a time.
ROWS = (8_000, 32_000)


def peaks_mib(folder: Path, format_: Format) -> list[int]:
    """The peak of a process for each of `ROWS`."""
    peaks = []
    for rows in ROWS:
        source, out = (folder / f"{name}-{rows}.{format_}" for name in ("in", "out"))
        write_rows(source, ["a text of some length, as many are " * 5] * rows)
        peaks.append(peak_mib(source, out))
    return peaks


def peak_mib(source: Path, out: Path) -> int:
    """The peak of a process that scores one file."""
    command = [sys.executable, "-m", "tests.unit.scoring.scorers", str(source), str(out)]
    return int(subprocess.check_output(command, cwd=ROOT)) >> 10
