"""Metrics on a full disk: the process goes on, and the values that were stored stay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.mmap_dict import MmapedDict

from core.metrics_map import INITIAL_BYTES, RETRY_SECONDS, ReservedMmapedDict
from core.paths import ROOT

# The limit stands for a full disk: both refuse to make a file larger.
PROGRAM = """
import resource, signal, sys
from core.metrics_map import ReservedMmapedDict
folder, first, then = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
limit(first)
values = ReservedMmapedDict(folder + "/counter_1.db")
values.write_value("a", 1.0, 0.0)
limit(then)
for number in range(5_000):
    values.write_value(f"series {number} of this metric", number, 0.0)
values.write_value("a", 2.0, 0.0)
assert values.read_value("a") == (2.0, 0.0)
assert values.read_value("series 4999 of this metric") == (4999.0, 0.0)
values.close()
"""


def stored(file: Path) -> dict[str, float]:
    entries = MmapedDict.read_all_values_from_file(str(file))  # type: ignore[no-untyped-call]
    return {key: value for key, value, *_ in entries}


@pytest.mark.parametrize(
    ("first_bytes", "then_bytes", "complete"),
    [(0, 0, False), (1 << 17, 0, False), (1 << 17, 1 << 17, False), (1 << 22, 1 << 22, True)],
)
def test_process_goes_on_when_its_file_cannot_grow(
    tmp_path: Path, first_bytes: int, then_bytes: int, *, complete: bool
) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(first_bytes), str(then_bytes)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert ("File too large" in done.stderr) is not complete
    if complete:
        assert len(stored(tmp_path / "counter_1.db")) == 5_001
    elif first_bytes:
        assert "a" in stored(tmp_path / "counter_1.db")


@pytest.mark.parametrize("first_bytes", [0, 1 << 16])
def test_values_are_in_the_file_once_there_is_room_again(tmp_path: Path, first_bytes: int) -> None:
    program = (
        PROGRAM.replace("values.close()", "").replace("5_000", "2_000")
        + f"""
import time
values.write_value("a", 3.0, 0.0)  # no room yet
limit(resource.RLIM_INFINITY)
deadline = time.monotonic() + {RETRY_SECONDS} + 20
while "can be written again" not in told.getvalue():
    assert time.monotonic() < deadline
    values.write_value("a", 4.0, 0.0)
    time.sleep(0.05)
values.write_value("a", 5.0, 0.0)
for number in range(2_000, 9_000):
    values.write_value(f"series {{number}} of this metric", number, 0.0)
import os
limit(os.stat(folder + "/counter_1.db").st_size + 1_000)  # and then there is room for a part
for number in range(9_000):
    values.write_value(f"late series {{number}} of this metric", number, 0.0)
assert values.read_value("late series 8999 of this metric") == (8999.0, 0.0)
"""
    )
    program = """
import io, logging
told = io.StringIO()
logging.basicConfig(level=logging.INFO, stream=told)
""" + program.replace("4999", "1999")
    command = [sys.executable, "-c", program, str(tmp_path), str(first_bytes), str(first_bytes)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=50)
    found = stored(tmp_path / "counter_1.db")
    assert {key.strip(): value for key, value in found.items() if "late" not in key} == {
        "a": 5.0,
        **{f"series {number} of this metric": float(number) for number in range(9_000)},
    }
    status = (tmp_path / "counter_1.db").stat()
    assert status.st_blocks * 512 >= status.st_size


def test_file_has_no_holes(tmp_path: Path) -> None:
    """A hole is filled when a value is written, and a full disk kills the process then."""
    values = ReservedMmapedDict(str(tmp_path / "counter_1.db"))
    for number in range(5_000):
        values.write_value(f"series {number} of this metric", number, 0.0)
    values.close()
    status = (tmp_path / "counter_1.db").stat()
    assert status.st_size > INITIAL_BYTES
    assert status.st_blocks * 512 >= status.st_size


@given(st.dictionaries(st.text(), st.floats(allow_nan=False), max_size=40))
def test_values_are_read_as_by_prometheus_client(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[str, float]
) -> None:
    file = tmp_path_factory.mktemp("metrics") / "counter_1.db"
    for _ in range(2):  # a process with the number of an earlier one goes on with its file
        values = ReservedMmapedDict(str(file))
        for key, value in wanted.items():
            values.write_value(key, value, 0.0)
        values.close()
    assert {key.rstrip(): value for key, value in stored(file).items()} == {
        key.rstrip(): value for key, value in wanted.items()
    }


def test_metrics_of_a_worker_are_kept_so(tmp_path: Path) -> None:
    program = "from core import metrics; metrics.log_stored.inc(3)"
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=True)
    files = list(tmp_path.glob("*.db"))
    assert files
    for file in files:
        assert file.stat().st_blocks * 512 >= file.stat().st_size
