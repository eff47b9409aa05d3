"""Reads a Parquet file in a process of its own, ahead of the process that has to live.

Some of Arrow's exceptions reach no Python: the process ends by SIGABRT, for example at an encrypted
column or at a table of contents with one changed byte. What the pilot has read, the other process
can read: both do the same with the same bytes.

    PROGRAM OPTIONS FILE    writes a line to its standard output once the file is open, and one
                            after each chunk; `OPTIONS` is JSON, see `Flight`
"""

from __future__ import annotations

import json
import math
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from core.paths import ROOT
from core.signals import end_with_parent
from datafiles.chunks import InvalidInput, Position
from datafiles.watched import MAX_OPENING_SECONDS, Watch

COMMAND = (sys.executable, "-m", "datafiles.parquet_pilot")
LOOK_SECONDS = 0.2
# One that says nothing for so long is given up; a busy machine may start it late.
SILENCE_SECONDS = 60.0
AHEAD_CHUNKS = 4
# The service's processes come first.
NICENESS = 10


@dataclass(frozen=True, slots=True)
class Flight:
    """What is to be read of a file; without `text_bytes` it is only opened."""

    column: str
    keep: Sequence[str] | None
    is_bounded: bool
    rows_before: int = 0
    limit: int | None = None
    text_bytes: int | None = None


class Pilot:
    """A process that reads ahead."""

    def __init__(self, process: subprocess.Popen[bytes], watch: Watch) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("a pilot needs pipes")
        self._process = process
        self._allowed, self._read = process.stdin, process.stdout
        self._watch = watch

    def advance(self, what: str) -> None:
        """Wait until the next part has been read, or all; `what` names it in a message.

        Raises:
            InvalidInput: it cannot be read, or ends the process that reads it.
            Exception: an error of `watch`, which is called meanwhile.
        """
        self._wait(what)
        line = self._read.readline()
        if not line:
            self._check_end(what)
            return
        reply = json.loads(line)
        if "fault" in reply:
            raise RuntimeError(f"{what} cannot be read: {reply['fault']}")
        if reply:
            raise InvalidInput(reply["message"], reply["option"])
        with suppress(BrokenPipeError):  # it has read all
            self._allowed.write(b"\n")

    def _wait(self, what: str) -> None:
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        for _ in range(round(SILENCE_SECONDS / LOOK_SECONDS)):
            self._watch()
            if poll.poll(LOOK_SECONDS * 1_000):
                return
        raise InvalidInput(f"{what} cannot be read within {SILENCE_SECONDS:g} s")

    def _check_end(self, what: str) -> None:
        code = self._process.wait(SILENCE_SECONDS)
        if code < 0:
            name = signal.Signals(-code).name
            reason = "it takes too long" if name == "SIGXCPU" else "it is damaged or encrypted"
            raise InvalidInput(f"{what} cannot be read: {reason} ({name})")
        if code > 0:
            raise RuntimeError(f"{what} cannot be read: the process for it ended with {code}")


@contextmanager
def piloted(path: Path, flight: Flight, watch: Watch) -> Generator[Pilot, None, None]:
    """Start a pilot, and wait until it has opened the file; it ends with the block.

    Raises:
        InvalidInput: the file cannot be opened.
        Exception: an error of `watch`, which is called meanwhile.
    """
    process = subprocess.Popen(
        [*COMMAND, json.dumps(asdict(flight)), path.absolute()],
        cwd=ROOT,
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # C++ says there why it ends a process
    )
    try:
        pilot = Pilot(process, watch)
        pilot.advance("the file")
        yield pilot
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def main() -> None:
    """Read the file of the arguments."""
    parent = os.getppid()
    end_with_parent()
    if os.getppid() != parent:
        return
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would hold the texts
    flight = Flight(**json.loads(sys.argv[1]))
    try:
        for _ in _parts(Path(sys.argv[2]), flight):
            _say({})
    except InvalidInput as error:
        _say({"message": str(error), "option": error.option})
    except Exception as error:  # noqa: BLE001  the other process tells it
        _say({"fault": f"{type(error).__name__}: {error}"})


def _say(reply: dict[str, str]) -> None:
    os.write(1, json.dumps(reply).encode() + b"\n")


def _parts(path: Path, flight: Flight) -> Generator[None, None, None]:
    """The file once it is open, and each of its chunks; waits if nobody follows."""
    from datafiles.parquet_source import ParquetSource

    if flight.text_bytes is None:
        limit_work(MAX_OPENING_SECONDS)
    source = ParquetSource(path, flight.column, flight.keep, str, is_bounded=flight.is_bounded)
    yield
    if flight.text_bytes is None:
        return
    start = Position(rows=flight.rows_before)
    for number, _ in enumerate(source.chunks(start, flight.limit, flight.text_bytes)):
        if number >= AHEAD_CHUNKS and not os.read(0, 1):
            return
        yield


def limit_work(seconds: float) -> None:
    """Let the kernel end this process (SIGXCPU) after so much more work of a core."""
    most = math.ceil(time.process_time() + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (most, most + 1))


if __name__ == "__main__":
    main()
