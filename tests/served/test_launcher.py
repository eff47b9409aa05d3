"""`make serve` starts everything, stops everything that it started, and keeps the data."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from core.paths import ROOT
from tests.serving import free_port

START_SECONDS = 90.0
STOP_SECONDS = 60.0


class Launched:
    """One run of the launcher."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.url = f"http://127.0.0.1:{environment['PORT']}"
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scripts.serve"],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while "ready" not in re.findall(r"^ready", self.output(), re.MULTILINE):
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.1)

    def stop(self, number: int) -> int:
        # As a terminal does: Ctrl-C reaches the whole process group.
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)

    def output(self) -> str:
        return self._log.read_text()


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_everything_stops_and_the_data_stay(
    bentoml_home: Path, tmp_path: Path, postgres_folder: Path, number: int
) -> None:
    port = str(free_port())
    environment = os.environ | {
        "BENTOML_HOME": str(bentoml_home),
        "BENTOML_DO_NOT_TRACK": "true",
        "DATA_FOLDER": str(postgres_folder),
        "HOST": "127.0.0.1",
        "PORT": port,
    }
    environment.pop("DATABASE_URL", None)
    environment.pop("REDIS_URL", None)

    first = Launched(environment, tmp_path / "first")
    first.wait_until_ready()
    body = {"text": "Kept over a restart."}
    prediction = httpx.post(f"{first.url}/predict", json=body).json()
    assert prediction["cache_hit"] is False
    assert first.stop(number) == 0, first.output()
    assert "Traceback" not in first.output()
    assert processes_using(postgres_folder, port) == []

    second = Launched(environment, tmp_path / "second")
    second.wait_until_ready()
    recent = httpx.get(f"{second.url}/analytics/recent").json()["predictions"]
    assert [row["id"] for row in recent] == [prediction["id"]]
    # A second launcher on the same data would stop the first one's databases when it ends.
    third = Launched(environment | {"PORT": str(free_port())}, tmp_path / "third")
    assert third.process.wait(STOP_SECONDS) == 1
    assert "another `make serve`" in third.output()
    assert second.stop(number) == 0
    assert processes_using(postgres_folder, port) == []


def test_named_databases_are_used_and_nothing_is_embedded(
    bentoml_home: Path, tmp_path: Path, postgres_server: object, redis_server: str
) -> None:
    from sqlalchemy import URL

    from tests.database import run_sql, scalar

    assert isinstance(postgres_server, URL)
    run_sql(postgres_server, "CREATE DATABASE launched")
    database_url = postgres_server.set(database="launched", drivername="postgres")
    environment = os.environ | {
        "BENTOML_HOME": str(bentoml_home),
        "BENTOML_DO_NOT_TRACK": "true",
        "DATA_FOLDER": str(tmp_path / "data"),
        "DATABASE_URL": database_url.render_as_string(hide_password=False),
        "REDIS_URL": redis_server.removesuffix("/0") + "/2",
        "HOST": "127.0.0.1",
        "PORT": str(free_port()),
    }
    launched = Launched(environment, tmp_path / "log")
    launched.wait_until_ready()
    assert httpx.post(f"{launched.url}/predict", json={"text": "a"}).status_code == 200
    assert launched.stop(signal.SIGTERM) == 0
    made = {path.name for path in (tmp_path / "data").iterdir()}
    assert made == {"spool", "rollout.json"}
    assert scalar(database_url, "SELECT count(*) FROM predictions") == 1
