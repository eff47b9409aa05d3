"""The number of cores to use is the container's, not the host's."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runners.cpu import NICENESS, cpu_flags, cpu_quota, made_at_low_priority, usable_cpus


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    return tmp_path / "proc"


@pytest.fixture
def cgroups(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_smallest_quota_above_a_process_counts(proc: Path, cgroups: Path) -> None:
    write(proc / "self" / "cgroup", "0::/pod/container\n")
    write(cgroups / "pod" / "container" / "cpu.max", "max 100000\n")
    write(cgroups / "pod" / "cpu.max", "150000 100000\n")
    write(cgroups / "cpu.max", "400000 100000\n")
    assert cpu_quota(cgroups, proc) == 1.5


def test_in_a_container_only_the_root_of_its_group_is_to_be_seen(proc: Path, cgroups: Path) -> None:
    write(proc / "self" / "cgroup", "0::/docker/0123abcd\n")
    write(cgroups / "cpu.max", "50000 100000\n")
    assert cpu_quota(cgroups, proc) == 0.5
    assert usable_cpus(cgroups, proc) == 1


@pytest.mark.parametrize("mounted_as", ["cpu,cpuacct", "cpu"])
def test_a_quota_of_version_1(proc: Path, cgroups: Path, mounted_as: str) -> None:
    write(proc / "self" / "cgroup", "5:memory:/a\n4:cpu,cpuacct:/a\n1:name=systemd:/a\n")
    write(cgroups / mounted_as / "a" / "cpu.cfs_quota_us", "200000\n")
    write(cgroups / mounted_as / "a" / "cpu.cfs_period_us", "100000\n")
    write(cgroups / mounted_as / "cpu.cfs_quota_us", "-1\n")
    write(cgroups / mounted_as / "cpu.cfs_period_us", "100000\n")
    assert cpu_quota(cgroups, proc) == 2.0


@pytest.mark.parametrize("text", ["", "nonsense\n", "max 100000\n", "1 2 3\n", "a b\n"])
def test_no_quota_that_can_be_read_is_none(proc: Path, cgroups: Path, text: str) -> None:
    write(proc / "self" / "cgroup", "0::/\n\nno colons\n")
    write(cgroups / "cpu.max", text)
    assert cpu_quota(cgroups, proc) is None
    assert usable_cpus(cgroups, proc) == len(os.sched_getaffinity(0))


def test_no_groups_at_all(proc: Path, cgroups: Path) -> None:
    assert cpu_quota(cgroups, proc) is None


def test_a_quota_past_the_cores_gives_no_more_than_these(proc: Path, cgroups: Path) -> None:
    write(proc / "self" / "cgroup", "0::/\n")
    write(cgroups / "cpu.max", "6400000 100000\n")
    assert usable_cpus(cgroups, proc) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("name", ["flags\t\t", "Features\t"])
def test_flags_are_those_of_the_first_core(tmp_path: Path, name: str) -> None:
    write(tmp_path / "cpuinfo", f"processor\t: 0\n{name}: fpu avx2\n\n{name}: other\n")
    assert cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx2"}
    assert cpu_flags(tmp_path / "missing") == frozenset()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
def test_what_computes_gives_way_and_who_starts_it_does_not() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def in_a_thread_of_its_own() -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(niceness).result()

    before = niceness()
    assert made_at_low_priority(in_a_thread_of_its_own) == max(before, NICENESS)
    assert niceness() == before
