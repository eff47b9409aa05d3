"""The CPU of this process: instruction sets, quota, priority of threads."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

# Of a thread that computes. The event loops then get a core as soon as they need it, for a fraction
# of a millisecond, and inference gets the rest, which is nearly all. At equal priority, answers
# from the cache and refusals waited for batches.
NICENESS = 15
LOWEST_NICENESS = 19

# The lines of /proc/cpuinfo that tell a kind of CPU from others, on x86 and on ARM. The clock and
# the number of the core are not among them.
_IDENTIFYING = frozenset(
    {
        "vendor_id", "cpu family", "model", "model name", "stepping", "flags",
        "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features",
    }
)  # fmt: skip

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


def cpu_flags(cpuinfo: Path = _PROC / "cpuinfo") -> frozenset[str]:
    """The instruction sets of the first core, as Linux names them; else empty."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):  # x86, ARM
            return frozenset(value.split())
    return frozenset()


def cpu_identity(cpuinfo: Path = _PROC / "cpuinfo") -> str:
    """The model, instruction sets and usable cores of this CPU, as one line.

    Engines rank alike on CPUs of one identity. Without Linux's description of the CPU it is the
    kind of the machine and its cores.
    """
    try:
        core = cpuinfo.read_text(encoding="utf-8").split("\n\n", 1)[0]
    except OSError:
        core = ""
    facts = {
        name.strip(): value.strip()
        for name, _, value in (line.partition(":") for line in core.splitlines())
        if name.strip() in _IDENTIFYING
    }
    name = facts.get("model name") or platform.processor() or platform.machine()
    digest = hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()[:12]
    return f"{name}, {usable_cpus()} cores, {digest}"


def is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


def usable_cpus(cgroups: Path = _CGROUPS, proc: Path = _PROC) -> int:
    """How many cores this process may keep busy, by its CPU set and quota.

    A quota of 1.5 cores counts as 2, so that the half core is used.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cpu_quota(cgroups, proc)
    return max(1, min(cores or 1, ceil(quota) if quota else cores or 1))


def cpu_quota(cgroups: Path = _CGROUPS, proc: Path = _PROC) -> float | None:
    """The smallest CPU quota (cgroup v2 or v1) of this process, in cores, if any."""
    quotas = []
    for controllers, group in _memberships(proc / "self" / "cgroup"):
        if controllers == "":  # cgroup v2 has one hierarchy and names no controllers
            quotas += [_quota(folder / "cpu.max") for folder in _upwards(cgroups, group)]
        elif "cpu" in controllers.split(","):
            for name in (controllers, "cpu", "cpu,cpuacct"):
                quotas += [
                    _quota(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us")
                    for folder in _upwards(cgroups / name, group)
                ]
    return min((quota for quota in quotas if quota is not None), default=None)


def _memberships(path: Path) -> list[tuple[str, str]]:
    """The (controllers, group) of each hierarchy that this process is in."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    parts = [line.split(":", 2) for line in lines]
    return [(part[1], part[2]) for part in parts if len(part) == 3]


def _upwards(root: Path, group: str) -> list[Path]:
    """The folders of `group` and its parents; a container shows only the root."""
    inside = Path(group.lstrip("/"))
    return [root / inside, *(root / parent for parent in inside.parents), root]


def _quota(*files: Path) -> float | None:
    """The quota in cores, from files with the microseconds in each period and those of a period."""
    try:
        quota, period = " ".join(file.read_text(encoding="utf-8") for file in files).split()
        cores = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no quota
        return None
    return cores if cores > 0 else None  # cgroup v1 writes -1 for no quota


def lower_priority() -> None:
    """Lower the priority of this thread and of the threads that it starts.

    Only on Linux, where each thread has its own priority.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        # Under `nice -n 19` it is lower already, and only root may raise it.
        if os.getpriority(os.PRIO_PROCESS, thread) < NICENESS:
            os.setpriority(os.PRIO_PROCESS, thread, NICENESS)


def take_idle_time() -> None:
    """Let this thread, and the threads that it starts, run while nothing else wants the core.

    The lowest niceness alone would take 30 % of a core from the threads of an engine, whose
    priority is low as well.
    """
    os.nice(LOWEST_NICENESS)
    if sys.platform == "linux":
        # A sandbox such as gVisor knows no such class.
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def at_low_priority(function: Callable[[], Result]) -> Result:
    """Call `function` so that the threads that it starts have a low priority."""
    with ThreadPoolExecutor(1, initializer=lower_priority) as pool:
        return pool.submit(function).result()
