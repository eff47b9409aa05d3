"""Processes of others, which may be gone by the time that one looks."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from core.paths import ROOT
from tests.waiting import wait_until


def command_of(process: psutil.Process) -> list[str]:
    """Its command line; empty where it is gone, or not to be seen."""
    try:
        command: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return command


def has_ended(process: psutil.Process) -> bool:
    """Whether it runs no more; who has to may not have taken note of it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def children_that_run(root: psutil.Process, name: str) -> list[psutil.Process]:
    """The descendants that have `name` in their command lines."""
    family = root.children(recursive=True)
    return [process for process in family if name in " ".join(command_of(process))]


def children_in(folder: Path) -> list[psutil.Process]:
    """The children of this process that work in a folder, or below it."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # one of another test, which has ended
            if Path(child.cwd()).is_relative_to(folder):
                found.append(child)
    return found


def child_that_runs(root: psutil.Process, name: str) -> psutil.Process:
    """The only one of them."""
    [found] = children_that_run(root, name)
    return found


def metrics_folder_of(worker: psutil.Process) -> Path:
    """The folder in which a process of a service keeps its metrics."""
    [folder] = {Path(file.path).parent for file in worker.open_files() if file.path.endswith(".db")}
    return folder


def assert_sigterm_to_fuzz_ends_all(
    *arguments: str, environment: Mapping[str, str] | None = None
) -> None:
    """Run `scripts.fuzz`, end it once it sends requests, and see that nothing of it is left."""
    run = subprocess.Popen(
        [sys.executable, "-m", "scripts.fuzz", *arguments],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    this = psutil.Process(run.pid)
    try:
        wait_until(lambda: children_that_run(this, "schemathesis.cli") != [], seconds=60)
        started = this.children(recursive=True)
    finally:
        run.send_signal(signal.SIGTERM)
        try:
            run.wait(60)
        finally:
            run.kill()  # one that has ended is left alone
    wait_until(lambda: not any(process.is_running() for process in started), seconds=10)
