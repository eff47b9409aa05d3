"""No library that our processes import reports its use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.paths import ROOT

# Prints each name that Python asks DNS for, and waits for reports from other threads.
ASK = """
import sys
sys.addaudithook(lambda event, args: event == "socket.getaddrinfo" and print(args[0], flush=True))
{first}
import openvino
import threading
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join(5)
"""


def names_asked_for(first: str, home: Path) -> list[str]:
    environment = {
        name: value for name, value in os.environ.items() if name not in {"CI", "TF_BUILD"}
    }
    program = ASK.format(first=first)
    return subprocess.check_output(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment | {"HOME": str(home)},
        text=True,
    ).split()


def test_openvino_reports_nothing_and_writes_nothing_in_the_home(tmp_path: Path) -> None:
    assert names_asked_for("import core", tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["", "false"])
def test_bentoml_that_was_asked_before_the_import_tracks_nothing(value: str) -> None:
    program = (
        "from bentoml._internal.utils.analytics.usage_stats import do_not_track\n"
        "assert not do_not_track()\n"
        "import core\n"
        "assert do_not_track()\n"
    )
    environment = os.environ | {"BENTOML_DO_NOT_TRACK": value}
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=True)
