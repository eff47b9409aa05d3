"""What commands print: for people, or one document, with everything else on stderr."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from core.command_output import JsonOption, emit, fail, note, print_document, slow_step
from core.paths import ROOT

app = typer.Typer()
RESULT = {"when": datetime(2026, 3, 1, tzinfo=UTC), "path": Path("/x"), "nan": float("nan")}


@app.command()
def report(*, fails: bool = False, as_json: JsonOption = False) -> None:
    print("progress")  # noqa: T201
    note("a remark\nof \x1b[31mtwo lines")
    emit(RESULT, lambda: print("for people"))  # noqa: T201
    if fails:
        fail("it [failed]")


def test_result_for_people_is_on_stdout_and_remarks_are_on_stderr() -> None:
    done = CliRunner().invoke(app, [])
    assert (done.exit_code, done.stdout) == (0, "progress\nfor people\n")
    assert done.stderr == "a remark\\nof \\x1b[31mtwo lines\n"


@pytest.mark.parametrize("fails", [False, True])
def test_json_is_one_document_on_stdout_with_the_same_exit_code(*, fails: bool) -> None:
    done = CliRunner().invoke(app, ["--json", *(["--fails"] if fails else [])])
    assert done.exit_code == int(fails)
    assert json.loads(done.stdout) == {"when": "2026-03-01T00:00:00Z", "path": "/x", "nan": None}
    assert "progress" in done.stderr
    assert ("it [failed]\n" in done.stderr) is fails
    # The next command of this process prints for people again.
    assert CliRunner().invoke(app, []).stdout == "progress\nfor people\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_document_is_json_in_every_encoding(encoding: str) -> None:
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    print_document({"text": "caf\u00e9 \U0001f600 \udcff"}, output)
    output.seek(0)
    assert json.loads(output.read())["text"][:6] == "caf\u00e9 \U0001f600"


def test_step_says_what_it_does_only_once_it_is_slow(capsys: pytest.CaptureFixture[str]) -> None:
    with slow_step("counting", after_seconds=60.0):
        pass
    assert capsys.readouterr().err == ""
    told = threading.Event()
    with slow_step("counting", after_seconds=0.0):
        threading.Timer(0.05, told.set).start()
        assert told.wait(10)
    assert capsys.readouterr().err == "counting ...\n"


# What follows the command in a shell, and the exit code: a reader that has left, a closed stdout, a
# full disk, a terminal without UTF-8.
ENDS = {"| true": 1, "--json >&-": 1, ">/dev/full": 1, "--json 2>&-": 0}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has it")
def test_output_that_cannot_be_written_ends_a_command_without_a_traceback() -> None:
    command = f"{sys.executable} -m scripts.make_key shop"
    lines = [f"{command} {end}; echo ${{PIPESTATUS[0]}} >&2" for end in ENDS]
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C", "PYTHONUTF8": "0", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Traceback" not in done.stderr
    codes = [int(line) for line in done.stderr.splitlines() if line.isdigit()]
    assert codes == list(ENDS.values())
