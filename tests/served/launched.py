"""The service as its users start it: a command with the private databases, and its output."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import httpx
import psutil

from core.paths import ROOT
from loadtest.ports import free_port
from tests.processes import child_that_runs, command_of
from tests.run import killed_temporary_folder

START_SECONDS = 90.0
STOP_SECONDS = 60.0


class Launched:
    """One run of a command that serves."""

    def __init__(
        self,
        environment: dict[str, str],
        log: Path,
        command: Sequence[str] = ("scripts.serve",),
        folder: Path = ROOT,
    ) -> None:
        self.url = f"http://127.0.0.1:{environment['PORT']}"
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop what a failed test has left running."""
        if self.process.poll() is None:
            self.stop(signal.SIGTERM)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        # A line of its own, or the message of a line of the log.
        while not re.search(r"\bready +after \d", self.output()):
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.1)

    def stop(self, number: int) -> int:
        # As a terminal does: Ctrl-C and its end reach the whole process group.
        if number in (signal.SIGINT, signal.SIGHUP):
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)

    def output(self) -> str:
        return self._log.read_text()


def environment_without_urls(bentoml_home: Path, **settings: str) -> dict[str, str]:
    """The environment of a user who has set nothing but a port."""
    unset = ("DATABASE_URL", "REDIS_URL", "DATA_FOLDER", "BENTOML_DO_NOT_TRACK")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    return {
        **kept,
        "BENTOML_HOME": str(bentoml_home),
        "HOST": "127.0.0.1",
        "PORT": str(free_port()),
        "TMPDIR": killed_temporary_folder(),
        **settings,
    }


def processes_using(folder: Path, port: str) -> list[str]:
    """The command lines of processes that name `folder` or have this PORT."""
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            names_port = process.environ().get("PORT") == port
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        if str(folder) in command or (names_port and process.pid != os.getpid()):
            found.append(command)
    return found


class SilentProxy:
    """An HTTP proxy that answers no request, and reads the first one."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        port = self._listener.getsockname()[1]
        names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
        self.environment = {
            **dict.fromkeys(names, f"http://127.0.0.1:{port}"),
            # As most people have it: what asks this machine itself has to know better.
            "NO_PROXY": "",
            "no_proxy": "",
        }

    def first_request(self) -> bytes:
        """The beginning of the first request; empty if there was none."""
        with self._listener:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return b""
            with connection:
                return connection.recv(1_000)


def leave_open_data(folder: Path) -> None:
    """Data that others may read, as an earlier release left it."""
    for name in ("spool", "models"):
        (folder / name).mkdir(parents=True)
        (folder / name).chmod(0o755)
    rejected = folder / "spool" / "rejected.jsonl"
    rejected.write_text("")
    rejected.chmod(0o644)


def open_to_others(folder: Path) -> list[Path]:
    """What other users may read or write in a folder; they may pass through the folder itself."""
    return [path for path in folder.rglob("*") if path.lstat().st_mode & 0o077]


@contextmanager
def watched_start(bentoml_home: Path, folder: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """The environment of starts on data that others may read, and their folder of temporary files.

    In the end the data are closed, no process uses them, and no start has asked another host.
    """
    proxy, data = SilentProxy(), folder / "data"
    # The path of temporary files is short enough for sockets.
    with TemporaryDirectory(prefix="t-") as temporary:
        environment = environment_without_urls(
            bentoml_home, DATA_FOLDER=str(data), TMPDIR=temporary, **proxy.environment
        )
        leave_open_data(data)
        yield environment, Path(temporary)
        assert processes_using(data, environment["PORT"]) == []
        assert proxy.first_request() == b""
        assert open_to_others(data) == []


def kill_that_leaves_no_process(launched: Launched) -> None:
    family = psutil.Process(launched.process.pid).children(recursive=True)
    commands = [" ".join(command_of(process)) for process in family]
    for expected in ("postgres", "valkey-server", "sentiment_runner_v1", "analytics.log"):
        assert any(expected in command for command in commands)
    # Nothing but SIGKILL ends a process that is stopped.
    child_that_runs(psutil.Process(launched.process.pid), "sentiment_runner_v2").suspend()
    launched.process.kill()
    assert psutil.wait_procs(family, timeout=10)[1] == []


def predict(url: str, text: str) -> str:
    """The id of a prediction that no cache answers."""
    prediction = httpx.post(f"{url}/predict", json={"text": text}).json()
    assert prediction["cache_hit"] is False
    id_: str = prediction["id"]
    return id_


def recent_ids(url: str) -> list[str]:
    rows = httpx.get(f"{url}/analytics/recent").json()["predictions"]
    return [row["id"] for row in rows]


def only_line(command: list[str], environment: dict[str, str], folder: Path = ROOT) -> str:
    """The whole output of a start that fails at once."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).splitlines()
    assert len(lines) == 1, lines
    return lines[0]
