"""`make` takes the newest Python that it can use, and says what is missing where it finds none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from core.paths import ROOT

SCRIPT = ROOT / "scripts" / "newest_python.sh"


def add_python(folder: Path, name: str, version: tuple[int, int], *, venv: bool = True) -> None:
    """Write a command that runs this Python as if it had a version, and a venv module or none."""
    blocked = "" if venv else "sys.modules['ensurepip'] = None; "
    disguise = f"import sys; sys.version_info = ({version[0]}, {version[1]}, 0); {blocked}"
    command = folder / name
    command.write_text(f"#!/bin/sh\nexec {sys.executable} -c \"{disguise}exec('''$2''')\"\n")
    command.chmod(0o755)


def newest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", SCRIPT, *arguments],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_newest_supported_python_on_the_path_is_taken(tmp_path: Path) -> None:
    for minor in (10, 11, 13, 15):
        add_python(tmp_path, f"python3.{minor}", (3, minor))
    assert newest(tmp_path).stdout == f"{tmp_path}/python3.13\n"


def test_command_that_fails_is_passed_over(tmp_path: Path) -> None:
    add_python(tmp_path, "python3.12", (3, 12))
    shim = tmp_path / "python3.14"
    shim.write_text("#!/bin/sh\necho 'pyenv: python3.14: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    done = newest(tmp_path)
    assert (done.stdout, done.stderr) == (f"{tmp_path}/python3.12\n", "")


def test_python_without_venv_is_passed_over_for_an_older_one_that_has_it(tmp_path: Path) -> None:
    add_python(tmp_path, "python3.14", (3, 14), venv=False)
    add_python(tmp_path, "python3.12", (3, 12))
    assert newest(tmp_path).stdout == f"{tmp_path}/python3.12\n"


def test_plain_python3_is_taken_where_no_other_name_is_found(tmp_path: Path) -> None:
    add_python(tmp_path, "python3", (3, 13))
    assert newest(tmp_path).stdout == f"{tmp_path}/python3\n"


def test_missing_venv_module_names_the_package_of_debian(tmp_path: Path) -> None:
    add_python(tmp_path, "python3.13", (3, 13), venv=False)
    done = newest(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "python3.13 has no venv module. On Debian and Ubuntu: apt install python3-venv\n"
    )


def test_machine_without_a_supported_python_is_told_which_are(tmp_path: Path) -> None:
    add_python(tmp_path, "python3", (3, 15))
    done = newest(tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "Python 3.11, 3.12, 3.13 or 3.14 is needed. None is on the path; "
        "PYTHON=COMMAND names one.\n"
    )


def test_named_command_is_the_only_one_tried(tmp_path: Path) -> None:
    add_python(tmp_path, "python3.13", (3, 13))
    add_python(tmp_path, "python3.12", (3, 12))
    add_python(tmp_path, "old", (3, 10))
    assert newest(tmp_path, "python3.12").stdout == f"{tmp_path}/python3.12\n"
    done = newest(tmp_path, "old")
    assert done.returncode == 1
    assert done.stderr == (
        "Python 3.11, 3.12, 3.13 or 3.14 is needed. PYTHON=old is none of them, or does not run.\n"
    )
