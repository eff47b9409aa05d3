"""A process that waits to be needed ends with its parent."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from core.paths import ROOT
from tests.processes import has_ended
from tests.waiting import wait_until

PROGRAM = """
import os
from core.standby import fork_standby, wait_until_taken
if fork_standby():
    print(os.getpid(), flush=True)
    wait_until_taken()
    os._exit(1)
input()
"""


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("killed", [False, True])
def test_standby_ends_with_its_parent(*, stopped: bool, killed: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout
        standby = psutil.Process(int(parent.stdout.readline()))
        if stopped:
            standby.suspend()
        if killed:
            parent.kill()
        else:
            parent.communicate("\n")
        wait_until(lambda: has_ended(standby))
