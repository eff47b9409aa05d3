"""Input from stdin and output to stdout, by way of files: a run reads and converts them at will."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.temporary_folders import scratch_folder
from datafiles.chunks import InvalidInput
from datafiles.pipes import as_regular_file

STDIO = Path("-")


def require_stdio(source: Path, out: Path) -> None:
    """Check that the standard streams which a run uses are open.

    Raises:
        InvalidInput: one is closed, as a service manager may start a process.
    """
    for path, name, stream in ((source, "stdin", sys.stdin), (out, "stdout", sys.stdout)):
        if path == STDIO and stream is None:
            raise InvalidInput(f"{name} is closed")


@contextmanager
def as_files(source: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """Copy stdin, or a pipe, to a private temporary file; stdout gets one that `write_out` copies.

    A path that names a regular file stays as it is.
    """
    given = sys.stdin.buffer if source == STDIO else source
    with as_regular_file(given) as read:
        if out != STDIO:
            yield read, out
            return
        with scratch_folder() as folder:
            yield read, folder / "out"


def write_out(out: Path, rejected: Path) -> None:
    """Write a finished output to stdout, and its rejected rows to stderr.

    Raises:
        BrokenPipeError: the reader of stdout has left.
    """
    if rejected.exists():
        sys.stderr.write(rejected.read_text(encoding="utf-8"))
    try:
        with out.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Python flushes stdout once more at its end, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise
