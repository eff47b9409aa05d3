"""A start removes the folders of ended starts, and no others."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.paths import ROOT
from core.temporary_folders import (
    OWNER,
    PREFIXES,
    claim,
    remove_abandoned,
    scratch_folder,
)

CLAIM = """
import sys
from pathlib import Path
from core.temporary_folders import claim
claim(Path(sys.argv[1]))
print("claimed", flush=True)
sys.stdin.read()
"""


@contextmanager
def claimed_by_another(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(folder)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        try:
            yield process
        finally:
            process.kill()


def lock(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(opened)


def made(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    (folder / "sub").mkdir()
    (folder / "sub/file").write_text("")
    return folder


@pytest.mark.parametrize("prefix", PREFIXES)
def test_folder_of_a_killed_process_is_removed_and_of_a_living_one_kept(
    tmp_path: Path, prefix: str
) -> None:
    folder = made(tmp_path / f"{prefix}x1")
    with claimed_by_another(folder) as process:
        assert stat.S_IMODE((folder / OWNER).stat().st_mode) == 0o600
        with pytest.raises(BlockingIOError):
            lock(folder)  # as programs do that clean /tmp of what is old
        for _ in range(2):
            remove_abandoned(tmp_path)
        assert (folder / "sub/file").exists()
        process.kill()
        process.wait()
        remove_abandoned(tmp_path)
        assert not folder.exists()


def test_own_folder_is_kept(tmp_path: Path) -> None:
    folder = made(tmp_path / "metrics-own")
    claim(folder)
    remove_abandoned(tmp_path)
    assert (folder / "sub/file").exists()


def no_mark(folder: Path) -> None:
    made(folder)


def half_a_mark(folder: Path) -> None:
    (made(folder) / f"{OWNER}.new").write_text("")


def mark_is_a_folder(folder: Path) -> None:
    (made(folder) / OWNER).mkdir()


def mark_is_a_link(folder: Path) -> None:
    (folder.parent / "mark").write_text("")
    (made(folder) / OWNER).symlink_to(folder.parent / "mark")


def mark_is_a_pipe(folder: Path) -> None:
    os.mkfifo(made(folder) / OWNER)


def is_a_link(folder: Path) -> None:
    (made(folder.parent / "elsewhere") / OWNER).write_text("")
    folder.symlink_to("elsewhere")


def is_a_file(folder: Path) -> None:
    folder.write_text("", encoding="utf-8")


@pytest.mark.parametrize(
    "make",
    [no_mark, half_a_mark, mark_is_a_folder, mark_is_a_link, mark_is_a_pipe, is_a_link, is_a_file],
)
def test_folder_that_is_not_proved_to_be_of_an_ended_start_is_kept(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    folder = tmp_path / "circus-x"
    make(folder)
    before = sorted(tmp_path.rglob("*"))
    remove_abandoned(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["pytest-x", "metricsx", "Circus-x", "sentiment-owner"])
def test_folder_of_another_name_is_kept(tmp_path: Path, name: str) -> None:
    (made(tmp_path / name) / OWNER).write_text("")
    remove_abandoned(tmp_path)
    assert (tmp_path / name / OWNER).exists()


def test_folder_that_cannot_be_read_is_no_error(tmp_path: Path) -> None:
    remove_abandoned(tmp_path / "absent")
    claim(tmp_path / "absent")


HOLD = """
import sys
from core.temporary_folders import scratch_folder
with scratch_folder() as folder:
    (folder / "weights").write_bytes(bytes(1_000))
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_scratch_folder_of_a_killed_process_is_removed_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        other = Path(process.stdout.readline().strip())
        with scratch_folder() as own:
            assert list(own.iterdir()) == []
            assert (other / "weights").exists()
            process.kill()
            process.wait()
            with scratch_folder():
                assert not other.exists()
                assert own.exists()
    assert list(tmp_path.iterdir()) == []
