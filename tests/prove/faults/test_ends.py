"""Every end of a start, at any age, ends all of it: the next start has the port and the data."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from core.paths import ROOT
from serving.forking import FORK_SECONDS, LOOK_SECONDS
from tests.processes import (
    assert_sigterm_to_fuzz_ends_all,
    child_that_runs,
    children_that_run,
)
from tests.served.launched import Launched, environment_without_urls, processes_using
from tests.serving import environment_of
from tests.waiting import wait_until

AGES = (0.3, 1.0, 2.0, 3.0, 4.5, 6.0)


@pytest.fixture
def environment(bentoml_home: Path, tmp_path: Path) -> dict[str, str]:
    return environment_without_urls(bentoml_home, DATA_FOLDER=str(tmp_path / "data"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_end_of_a_young_start_leaves_nothing(
    number: signal.Signals, environment: dict[str, str], tmp_path: Path
) -> None:
    for age in AGES:
        with Launched(environment, tmp_path / f"log-{age}", ["bentoml", "serve"]) as young:
            time.sleep(age)  # the age is the condition
            young.stop(number)
            wait_until(lambda: processes_using(tmp_path / "data", environment["PORT"]) == [], 20)
            assert "is started again" not in young.output(), young.output()
    with Launched(environment, tmp_path / "last", ["bentoml", "serve"]) as last:
        last.wait_until_ready()
        assert httpx.post(f"{last.url}/predict", json={"text": "a"}).status_code == 200
        assert last.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("name", ["sentiment_runner_v1", "--service-name sentiment --backlog"])
def test_sigterm_ends_a_service_with_a_hanging_worker(
    name: str, environment: dict[str, str], tmp_path: Path
) -> None:
    slow = environment | {"STOP_SECONDS": "3"}
    with Launched(slow, tmp_path / "log", ["bentoml", "serve"]) as launched:
        launched.wait_until_ready()
        child_that_runs(psutil.Process(launched.process.pid), name).suspend()
        assert launched.stop(signal.SIGTERM) == 0
        assert processes_using(tmp_path / "data", environment["PORT"]) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_end_of_a_service_with_a_stopped_fork_server_leaves_nothing(
    number: signal.Signals, environment: dict[str, str], tmp_path: Path
) -> None:
    with Launched(environment, tmp_path / "log", ["bentoml", "serve"]) as launched:
        launched.wait_until_ready()
        manager = psutil.Process(launched.process.pid)
        forks = child_that_runs(manager, "fork_server.py")
        forks.suspend()
        # The process manager waits for it, in vain, or has just given it up when the end comes.
        child_that_runs(manager, "sentiment_runner_v1").kill()
        time.sleep(LOOK_SECONDS)
        launched.stop(number)
        wait_until(lambda: processes_using(tmp_path / "data", environment["PORT"]) == [], 30)


@pytest.mark.parametrize("is_stopped_at_start", [False, True], ids=["later", "at the start"])
def test_workers_start_without_a_stopped_fork_server(
    is_stopped_at_start: bool, environment: dict[str, str], tmp_path: Path
) -> None:
    with Launched(environment, tmp_path / "log", ["bentoml", "serve"]) as launched:
        manager = psutil.Process(launched.process.pid)
        if is_stopped_at_start:
            wait_until(lambda: children_that_run(manager, "fork_server.py") != [])
        else:
            launched.wait_until_ready()
        forks = child_that_runs(manager, "fork_server.py")
        forks.suspend()
        if not is_stopped_at_start:
            child_that_runs(manager, "sentiment_runner_v1").kill()
            wait_until(lambda: "the fork server is lost" in launched.output(), FORK_SECONDS + 10)
        launched.wait_until_ready()
        wait_until(lambda: is_ready(launched.url), 60)
        assert httpx.post(f"{launched.url}/predict", json={"text": "a"}).status_code == 200
        assert launched.output().count("the fork server is lost") == 1
        assert launched.stop(signal.SIGTERM) == 0
        assert processes_using(tmp_path / "data", environment["PORT"]) == []


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.05, 0.3, 1.0])
def test_kill_beside_a_worker_that_was_just_forked_leaves_nothing(
    seconds: float, environment: dict[str, str], tmp_path: Path
) -> None:
    with Launched(environment, tmp_path / "log", ["bentoml", "serve"]) as launched:
        launched.wait_until_ready()
        manager = psutil.Process(launched.process.pid)
        before = set(manager.children(recursive=True))
        child_that_runs(manager, "sentiment_runner_v1").kill()
        wait_until(lambda: bool(set(manager.children(recursive=True)) - before))
        time.sleep(seconds)  # the age is the condition
        launched.stop(signal.SIGKILL)
        wait_until(lambda: processes_using(tmp_path / "data", environment["PORT"]) == [], 20)


@pytest.mark.parametrize("prefix", [[], ["nohup"]], ids=["plain", "nohup"])
def test_closed_terminal_ends_a_start_that_does_not_ignore_it(
    prefix: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    controller, terminal = pty.openpty()
    with (tmp_path / "log").open("wb") as log:
        # Otherwise `nohup` makes a file of its own.
        output_to = log.fileno() if prefix else terminal
        process = subprocess.Popen(
            ["setsid", "--ctty", *prefix, sys.executable, "-m", "bentoml", "serve"],
            cwd=ROOT, env=environment, stdin=terminal, stdout=output_to, stderr=output_to,
        )  # fmt: skip
    os.close(terminal)
    url = f"http://127.0.0.1:{environment['PORT']}"
    output = drained(controller)
    try:
        wait_until(lambda: is_ready(url), 90)
        output.kill()
        output.wait()
        os.close(controller)
        if prefix:
            time.sleep(5)  # the time in which the other start ends
            assert is_ready(url)
            process.terminate()
        process.wait(30)
        assert processes_using(tmp_path / "data", environment["PORT"]) == []
    finally:
        process.kill()
        process.wait()


def test_sigterm_to_fuzz_ends_the_service_that_it_started(
    bentoml_home: Path, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    environment = environment_of(bentoml_home, DATA_FOLDER=str(shared))
    assert_sigterm_to_fuzz_ends_all(environment=environment)
    # Two runs at once would ship each other's predictions, each to its own database.
    assert not shared.exists()


def drained(controller: int) -> subprocess.Popen[bytes]:
    """Read the output of a terminal, which holds little of it."""
    return subprocess.Popen(["cat"], stdin=controller, stdout=subprocess.DEVNULL)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2).is_success
    except httpx.TransportError:
        return False
