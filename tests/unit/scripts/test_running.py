"""A command runs whatever its standard streams are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.paths import ROOT

COMMAND = """
import os, sys
from pathlib import Path
from scripts.running import run_command

def main(file: Path) -> None:
    print("to stdout")
    print("to stderr", file=sys.stderr)
    opened = file.open("w")
    assert opened.fileno() > 2
    os.write(1, b"of a library")
    os.system("echo of a child; echo of a child >&2; cat")
    opened.write("written")
    opened.close()

run_command(main)
"""


@pytest.mark.parametrize(
    "streams", [">&-", "<&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-", ""]
)
def test_command_with_closed_streams_runs_and_writes_into_no_file_of_its_own(
    tmp_path: Path, streams: str
) -> None:
    file = tmp_path / "file"
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-c", COMMAND, str(file)],
        check=False,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, file.read_text()) == (0, "written")
    for of_stream, said, shift in (("stdout", done.stdout, ">&-"), ("stderr", done.stderr, "2>&-")):
        is_closed = shift in streams.split()
        assert (f"to {of_stream}" in said, "of a child" in said) == (not is_closed,) * 2
