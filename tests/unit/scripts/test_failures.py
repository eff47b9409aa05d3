"""A command that fails names the file that is at fault, and shows no traceback."""

from __future__ import annotations

import ast
import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.paths import ROOT
from scripts.cli import app, commands
from scripts.failures import failure_line, os_error_line

HOME = "BENTOML_HOME: "


@pytest.mark.parametrize(
    ("file", "code", "line"),
    [
        ("{other}/in.csv", errno.EACCES, "{other}/in.csv: Permission denied"),
        ("in.csv", errno.EACCES, "in.csv: Permission denied"),
        (b"{other}/caf\xe9", errno.ENOENT, None),
        ("{other}/out.csv.partial", errno.ENOSPC, "{other}/out.csv.partial: No space left"),
        ("{home}-2/models", errno.EACCES, "{home}-2/models: Permission denied"),
        ("{home}", errno.EACCES, HOME),
        ("{home}/models/x", errno.EROFS, HOME),
        ("{home}/../home/tmp", errno.EACCES, HOME),
        (None, errno.EACCES, HOME),
        (7, errno.EACCES, None),
    ],
)
def test_bentoml_home_is_blamed_for_its_own_files_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str | bytes | int | None,
    code: int,
    line: str | None,
) -> None:
    # A home that nobody can make, also root.
    places = {"home": str(tmp_path / "file/home"), "other": str(tmp_path / "other")}
    (tmp_path / "file").touch()
    monkeypatch.setenv("BENTOML_HOME", places["home"])
    if isinstance(file, str):
        file = os.path.normpath(file.format(**places))
    answer = os_error_line(OSError(code, os.strerror(code), file))
    assert answer is not None
    if line is None:
        assert HOME not in answer
    else:
        assert answer.startswith(line.format(**places))


def test_error_without_a_file_and_a_reason_gets_a_file_with_its_traceback() -> None:
    line = failure_line(OSError("nobody knows"))
    assert line.startswith("failed: OSError: nobody knows\nThis is a fault of this program.")
    named = re.search(r"program\. (\S+) has the traceback", line)
    assert named is not None
    file = Path(named[1])
    assert file.read_text(encoding="utf-8") == "OSError: nobody knows\n"
    file.unlink()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["score", "{}.xlsx", "out.csv"], "{}.xlsx: its name must end in"),
        (["models", "import", "./{}", "--as", "v1"], "there is no folder ./{}"),
    ],
)
@pytest.mark.parametrize("name", [":smile:", "a:b:c", "[bold]", "[b]x[", "\\[x]"])
def test_name_of_a_file_is_printed_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.xlsx").touch()
    done = CliRunner().invoke(app, [argument.replace("{}", name) for argument in arguments])
    assert done.exit_code == 1
    assert sentence.replace("{}", name) in done.output


@pytest.mark.parametrize("name", commands())
def test_every_command_ends_with_a_line_when_python_runs_its_module(name: str) -> None:
    # Typer would show its traceback.
    *_, main = [
        node
        for node in ast.parse(commands()[name].read_text(encoding="utf-8")).body
        if isinstance(node, ast.If)
    ]
    called = {node.id for node in ast.walk(main) if isinstance(node, ast.Name)}
    assert called & {"run_command", "failures_as_lines"}
    assert "typer" not in called


@pytest.mark.parametrize("command", ["models list", "doctor", "rollout status", "migrate"])
def test_module_that_python_runs_shows_no_traceback(tmp_path: Path, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *f"scripts.{command}".split()],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PORT": "http", "COLUMNS": "200"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 1
    assert "PORT: Input should be a valid integer" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
