"""The processes of a running service: which are there, their CPU time and their memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import psutil

_ROLES = {
    "--service-name sentiment ": "API",
    "sentiment_runner_v1": "v1",
    "sentiment_runner_v2": "v2",
    "analytics.log": "shipper",
    "log-shipper-standby": "shipper",
    "fork_server.py": "fork server",
    "bentoml serve": "supervisor",
    "scripts.serve": "supervisor",
    "postgres": "PostgreSQL",
    "valkey": "Redis",
}
Result = TypeVar("Result")


def processes(pid: int) -> list[psutil.Process]:
    """A process and its descendants."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def of_each_role(
    pid: int, read: Callable[[psutil.Process], Result]
) -> Iterator[tuple[str, psutil.Process, Result]]:
    """What `read` finds out of each process of a service; one that has ended is left out."""
    for process in processes(pid):
        with suppress(psutil.NoSuchProcess):
            command = " ".join(process.cmdline())
            role = next((role for part, role in _ROLES.items() if part in command), "other")
            yield role, process, read(process)


def cpu_seconds(pid: int, since: Mapping[str, float] | None = None) -> dict[str, float]:
    """CPU time so far, or since an earlier result, by role."""
    seconds = {role: -before for role, before in (since or {}).items()}
    for role, _, times in of_each_role(pid, psutil.Process.cpu_times):
        seconds[role] = seconds.get(role, 0.0) + times.user + times.system
    return seconds


def resident_mib(process: psutil.Process) -> float:
    return float(process.memory_info().rss / 2**20)


@asynccontextmanager
async def sampled(sample: Callable[[], Result], seconds: float) -> AsyncIterator[list[Result]]:
    """The results of `sample`, every so many seconds while the block lasts, and at its end."""
    samples: list[Result] = []

    async def keep_sampling() -> None:
        while True:
            samples.append(await asyncio.to_thread(sample))
            await asyncio.sleep(seconds)

    sampling = asyncio.create_task(keep_sampling())
    try:
        yield samples
    finally:
        sampling.cancel()
        samples.append(sample())
