"""Processes of others, which may be gone by the time that one looks."""

from __future__ import annotations

import psutil


def command_of(process: psutil.Process) -> list[str]:
    """Its command line; empty where it is gone, or not to be seen."""
    try:
        command: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return command


def child_that_runs(root: psutil.Process, name: str) -> psutil.Process:
    """The one descendant that has `name` in its command line."""
    [found] = [
        process
        for process in root.children(recursive=True)
        if any(name in part for part in command_of(process))
    ]
    return found
