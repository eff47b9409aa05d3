"""The cores that a process may use are the container's, not the host's."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.paths import ROOT
from runners.cpu import (
    LOWEST_NICENESS,
    NICENESS,
    at_low_priority,
    cpu_flags,
    cpu_quota,
    usable_cpus,
)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    return tmp_path / "proc"


@pytest.fixture
def cgroups(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_smallest_quota_of_the_parent_groups_counts(proc: Path, cgroups: Path) -> None:
    write(proc / "self" / "cgroup", "0::/pod/container\n")
    write(cgroups / "pod" / "container" / "cpu.max", "max 100000\n")
    write(cgroups / "pod" / "cpu.max", "150000 100000\n")
    write(cgroups / "cpu.max", "400000 100000\n")
    assert cpu_quota(cgroups, proc) == 1.5


def test_quota_is_read_from_the_root_where_a_container_shows_only_that(
    proc: Path, cgroups: Path
) -> None:
    write(proc / "self" / "cgroup", "0::/docker/0123abcd\n")
    write(cgroups / "cpu.max", "50000 100000\n")
    assert cpu_quota(cgroups, proc) == 0.5
    assert usable_cpus(cgroups, proc) == 1


@pytest.mark.parametrize("mounted_as", ["cpu,cpuacct", "cpu"])
def test_quota_of_cgroup_v1_is_read(proc: Path, cgroups: Path, mounted_as: str) -> None:
    write(proc / "self" / "cgroup", "5:memory:/a\n4:cpu,cpuacct:/a\n1:name=systemd:/a\n")
    write(cgroups / mounted_as / "a" / "cpu.cfs_quota_us", "200000\n")
    write(cgroups / mounted_as / "a" / "cpu.cfs_period_us", "100000\n")
    write(cgroups / mounted_as / "cpu.cfs_quota_us", "-1\n")
    write(cgroups / mounted_as / "cpu.cfs_period_us", "100000\n")
    assert cpu_quota(cgroups, proc) == 2.0


@pytest.mark.parametrize("text", ["", "nonsense\n", "max 100000\n", "1 2 3\n", "a b\n"])
def test_unreadable_quota_counts_as_none(proc: Path, cgroups: Path, text: str) -> None:
    write(proc / "self" / "cgroup", "0::/\n\nno colons\n")
    write(cgroups / "cpu.max", text)
    assert cpu_quota(cgroups, proc) is None
    assert usable_cpus(cgroups, proc) == len(os.sched_getaffinity(0))


def test_missing_cgroups_mean_no_quota(proc: Path, cgroups: Path) -> None:
    assert cpu_quota(cgroups, proc) is None


def test_quota_past_the_number_of_cores_gives_the_cores(proc: Path, cgroups: Path) -> None:
    write(proc / "self" / "cgroup", "0::/\n")
    write(cgroups / "cpu.max", "6400000 100000\n")
    assert usable_cpus(cgroups, proc) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("name", ["flags\t\t", "Features\t"])
def test_flags_are_those_of_the_first_core(tmp_path: Path, name: str) -> None:
    write(tmp_path / "cpuinfo", f"processor\t: 0\n{name}: fpu avx2\n\n{name}: other\n")
    assert cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx2"}
    assert cpu_flags(tmp_path / "missing") == frozenset()


@pytest.mark.skipif(
    sys.platform != "linux", reason="only on Linux has each thread its own priority"
)
def test_threads_started_at_low_priority_leave_the_priority_of_the_caller() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def niceness_of_a_new_thread() -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(niceness).result()

    before = niceness()
    assert at_low_priority(niceness_of_a_new_thread) == max(before, NICENESS)
    assert niceness() == before


@pytest.mark.skipif(
    sys.platform != "linux", reason="only on Linux has each thread its own priority"
)
def test_priority_of_a_process_that_is_lower_already_stays() -> None:
    program = f"""
import os, threading
from runners.cpu import at_low_priority
os.nice({LOWEST_NICENESS})
print(at_low_priority(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, cwd=ROOT, capture_output=True, text=True
    )
    assert int(done.stdout) == LOWEST_NICENESS


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such a class")
def test_threads_of_a_process_that_takes_idle_time_take_it_too() -> None:
    program = """
import os
from concurrent.futures import ThreadPoolExecutor
from runners.cpu import take_idle_time
take_idle_time()
with ThreadPoolExecutor(1) as pool:
    print(pool.submit(os.sched_getscheduler, 0).result() == os.SCHED_IDLE)
"""
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "True\n"
