"""A command runs whatever its standard streams are."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from core.paths import ROOT

COMMAND = """
import os, sys
from pathlib import Path
from scripts.running import run_command

def main(file: Path) -> None:
    print("to stdout")
    print("to stderr", file=sys.stderr)
    opened = file.open("w")
    assert opened.fileno() > 2
    os.write(1, b"of a library")
    os.system("echo of a child; echo of a child >&2; cat")
    opened.write("written")
    opened.close()

run_command(main)
"""


@pytest.mark.parametrize(
    "streams", [">&-", "<&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-", ""]
)
def test_command_with_closed_streams_runs_and_writes_into_no_file_of_its_own(
    tmp_path: Path, streams: str
) -> None:
    file = tmp_path / "file"
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-c", COMMAND, str(file)],
        check=False,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, file.read_text()) == (0, "written")
    for of_stream, said, shift in (("stdout", done.stdout, ">&-"), ("stderr", done.stderr, "2>&-")):
        is_closed = shift in streams.split()
        assert (f"to {of_stream}" in said, "of a child" in said) == (not is_closed,) * 2


ODD_PARENT = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_command_learns_how_its_children_end_and_is_stopped_whatever_its_parent_ignored() -> None:
    command = """
import subprocess, time
from scripts.running import run_command

def main() -> None:
    print(subprocess.run(["sh", "-c", "exit 7"]).returncode, flush=True)
    time.sleep(60)

run_command(main)
"""
    with subprocess.Popen(
        [sys.executable, "-c", ODD_PARENT, "-c", command], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"7\n"
            process.terminate()
            assert process.wait(10) == -signal.SIGTERM
        finally:
            process.kill()


@pytest.mark.parametrize(("umask", "mode"), [(0, 0o664), (0o002, 0o664), (0o077, 0o600)])
def test_command_makes_no_file_that_all_users_may_write(
    tmp_path: Path, umask: int, mode: int
) -> None:
    file = tmp_path / "file"
    subprocess.run(
        [sys.executable, "-c", COMMAND, str(file)],
        check=True, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, umask=umask,
    )  # fmt: skip
    assert stat.S_IMODE(file.stat().st_mode) == mode


INTERRUPTED_IMPORT = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('imported')"
AS_SENTIMENT = "import sys; sys.argv[0] = '/bin/sentiment'; from scripts.cli import main; main()"


@pytest.mark.parametrize("arguments", [["-m", "scripts.doctor"], ["-c", AS_SENTIMENT]])
@pytest.mark.parametrize("ignored", ["", "trap '' INT; "])
def test_ctrl_c_while_a_command_is_imported_is_no_traceback(
    tmp_path: Path, arguments: list[str], ignored: str
) -> None:
    (tmp_path / "typer.py").write_text(INTERRUPTED_IMPORT)
    done = subprocess.run(
        ["sh", "-c", f'{ignored}exec "$@"', "sh", sys.executable, *arguments],
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if ignored:  # as a shell without job control starts what has an & behind it
        assert done.stdout == "imported\n"
    else:
        assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_ctrl_c_in_a_command_is_an_interrupt() -> None:
    program = (
        "import os, signal, sys; sys.argv[0] = 'sentiment'; from scripts.running import run_command"
        "\ndef main() -> None:\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n"
        "        print('cleaned up')\n"
        "        raise\n"
        "run_command(main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (130, "cleaned up\n"), done
    assert "Traceback" not in done.stderr
