"""Nothing waits for whatever reads the log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from core.log_lines import FLUSH_SECONDS, MAX_WAITING_LINES
from core.paths import ROOT
from tests.waiting import wait_until

LINES = 3 * MAX_WAITING_LINES
PROGRAM = f"""
import logging, sys
from core.logging import configure_logs
configure_logs("INFO", "text", lambda: "here")
logger = logging.getLogger("bentoml.sentiment")
for number in range({LINES}):
    logger.info("line %06d %s", number, "x" * 100)
sys.stderr.write("logged\\n")
sys.stderr.flush()
sys.stdin.readline()
logger.info("the last line")
"""


@contextmanager
def logging_into(pipe: int) -> Iterator[subprocess.Popen[str]]:
    """A program that logs more than may wait; it logs once more at a line of input."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=pipe, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        yield process


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.parametrize("blocks", [True, False])
def test_reader_that_stalls_stops_no_process_and_learns_what_it_missed(*, blocks: bool) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, blocks)
    with logging_into(writing) as process:
        os.close(writing)
        assert process.stderr is not None
        assert process.stderr.readline() == "logged\n"
        read = os.read(reading, 1 << 20)
        os.set_blocking(reading, False)

        def has_read_all() -> bool:
            nonlocal read
            try:
                read += os.read(reading, 1 << 20)
            except BlockingIOError:
                return b" %06d " % MAX_WAITING_LINES in read
            return False

        wait_until(has_read_all, 30)
        go_on(process)
        process.wait(30)
    os.set_blocking(reading, True)
    while rest := os.read(reading, 1 << 20):
        read += rest
    os.close(reading)
    lines = read.decode().splitlines()
    written = sum("xxx" in line for line in lines)
    assert MAX_WAITING_LINES <= written < LINES
    # The writer may have been slow before its reader stalled: that was told too.
    told = [int(count) for count in re.findall(rb"(\d+) lines of the log were dropped", read)]
    assert sum(told) == LINES - written
    assert f" {told[-1]} lines of the log were dropped" in lines[-2]
    assert "the last line" in lines[-1]


def test_reader_that_stalls_for_ever_stops_no_end() -> None:
    reading, writing = os.pipe()
    with logging_into(writing) as process:
        os.close(writing)
        assert process.stderr is not None
        assert process.stderr.readline() == "logged\n"
        go_on(process)
        assert process.wait(FLUSH_SECONDS + 30) == 0
        assert process.stderr.read() == ""
    os.close(reading)


def test_reader_that_has_left_stops_no_process() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with logging_into(writing) as process:
        os.close(writing)
        go_on(process)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == "logged\n"


def test_line_that_cannot_be_made_fails_nobody() -> None:
    program = """
import logging
from core.logging import configure_logs
configure_logs("INFO", "text", lambda: "here")
logging.getLogger("bentoml.sentiment").info("%d", "no number")
logging.getLogger("bentoml.sentiment").info("the next line")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "the next line" in done.stdout
    assert "not all arguments converted" not in done.stdout
    assert "--- Logging error ---" in done.stderr
