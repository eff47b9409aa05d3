"""A process that waits to be needed ends with its parent."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from core.paths import ROOT
from tests.waiting import wait_until

PROGRAM = """
import os, signal
from core.standby import fork_standby, _waiting, wait_until_taken
if fork_standby():
    wait_until_taken()
    os._exit(1)
[standby] = _waiting
if {stopped}:
    os.kill(standby.pid, signal.SIGSTOP)
print(standby.pid, flush=True)
input()
"""


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("killed", [False, True])
def test_standby_ends_with_its_parent(*, stopped: bool, killed: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(stopped=stopped)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout
        standby = psutil.Process(int(parent.stdout.readline()))
        if killed:
            parent.kill()
        else:
            parent.communicate("\n")
        wait_until(lambda: not standby.is_running() or standby.status() == psutil.STATUS_ZOMBIE)
