"""Processes of others, which may be gone by the time that one looks."""

from __future__ import annotations

from pathlib import Path

import psutil


def command_of(process: psutil.Process) -> list[str]:
    """Its command line; empty where it is gone, or not to be seen."""
    try:
        command: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return command


def children_that_run(root: psutil.Process, name: str) -> list[psutil.Process]:
    """The descendants that have `name` in their command lines."""
    family = root.children(recursive=True)
    return [process for process in family if name in " ".join(command_of(process))]


def child_that_runs(root: psutil.Process, name: str) -> psutil.Process:
    """The only one of them."""
    [found] = children_that_run(root, name)
    return found


def metrics_folder_of(worker: psutil.Process) -> Path:
    """The folder in which a process of a service keeps its metrics."""
    [folder] = {Path(file.path).parent for file in worker.open_files() if file.path.endswith(".db")}
    return folder
