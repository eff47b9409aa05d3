"""`sentiment`, and every script by itself: help without effect, usage errors, the version."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from core.paths import ROOT
from core.version import VERSION
from scripts.cli import OPERATING, commands, load_command

SCRIPTS = ROOT / "scripts"
RUNNABLE = sorted(
    path.stem
    for path in SCRIPTS.glob("*.py")
    if "__main__" in path.read_text() and path.stem != "cli"
)
MAX_HELP_SECONDS = 1.0
# Reports each effect that a program has outside itself, as Python audits it.
AUDIT = """
import os, sys

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
# BentoML makes the folders of its store when it is imported; tempfile tries its folder out.
ALLOWED = (os.environ["BENTOML_HOME"], os.environ["TMPDIR"])

def is_elsewhere(path):
    return isinstance(path, str) and path != os.devnull and not path.startswith(ALLOWED)

def audit(event, arguments):
    if event == "open":
        path, _, flags = arguments
        effect = flags & WRITES and is_elsewhere(path)
    elif event in {"os.mkdir", "os.remove", "os.rename", "os.rmdir"}:
        effect = is_elsewhere(os.fspath(arguments[0]))
    else:
        effect = event in {"socket.bind", "socket.connect", "os.kill"}
    if effect:
        os.write(2, f"EFFECT {event} {arguments}\\n".encode())

sys.addaudithook(audit)
"""


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in `folder`, with every setting pointing into it and effects reported."""
    for name in ("audit", "elsewhere", "temporary"):
        (folder / name).mkdir()
    (folder / "audit" / "sitecustomize.py").write_text(AUDIT)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "BENTOML_HOME": str(folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "true",
        "TMPDIR": str(folder / "temporary"),
        "DATA_FOLDER": str(folder / "data"),
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none",
        "REDIS_URL": "redis://127.0.0.1:9/0",
        "PYTHONPATH": f"{folder / 'audit'}{os.pathsep}{ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "100",
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder / "elsewhere",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def typed(way: str, name: str) -> str:
    """The command line of a script, as a user types it."""
    return way.replace("NAME", name if "scripts." in way else name.replace("_", "-"))


def arguments_of(way: str, name: str) -> list[str]:
    """What Python is given for that command line."""
    return typed(way, name).replace("sentiment", "python -m scripts.cli").split()[1:]


# They run until they are stopped, or write files of the repository.
WITHOUT_REPORT = {
    ("serve",),
    ("demo",),
    ("dashboards",),
    ("fuzz",),
    ("gate-starters",),
    ("install-torch",),
    ("loadtest-baseline",),
    ("screenshots",),
    ("settings-reference",),
    ("train-starter",),
    ("transcript",),
    ("vendor-assets",),
    ("warm-image",),
    # Inside of other commands.
    ("engine-texts",),
}


def leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command, or each command of a group, by the words that lead to it."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, inner in command.commands.items():
        yield from leaves(inner, (*path, name))


def test_no_command_adds_a_folder_to_import_from() -> None:
    before = [*sys.path]
    for name in commands():
        load_command(name)
    assert sys.path == before


def test_every_command_that_reports_takes_json() -> None:
    found = [leaf for name in commands() for leaf in leaves(load_command(name), (name,))]
    without = {
        path
        for path, command in found
        if not any("--json" in parameter.opts for parameter in command.params)
    }
    assert without == WITHOUT_REPORT & {path for path, _ in found}


def test_help_shows_all_that_is_written_and_lets_the_terminal_wrap_it() -> None:
    """Rich takes text in brackets for markup and drops it; Typer keeps single line ends."""
    for name in commands():
        for path, command in leaves(load_command(name), (name,)):
            texts = [command.help, *(getattr(one, "help", None) for one in command.params)]
            for text in filter(None, texts):
                assert not re.search(r"\[[a-z/@#]", text), (path, text)
                assert not re.search(r"[^\n]\n[^\n]", text), (path, text)


# Runs many command lines in one process: importing takes most of a second. Each is a module and its
# arguments, as for `python -m`; what it prints and how it ended is a line of JSON. The effects of
# an import are reported where the first command imports it.
DRIVER = """
import contextlib, io, json, os, runpy, sys

for module, *arguments in json.loads(sys.argv.pop()):
    printed = io.StringIO()
    sys.argv = [module, *arguments]
    sys.modules.pop(module, None)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    os.write(1, f"{json.dumps([code, printed.getvalue()])}\\n".encode())
"""


class Ended(NamedTuple):
    code: object
    output: str


def run_all(lines: Sequence[Sequence[str]], folder: Path) -> list[Ended]:
    """Run the command lines in one process, in `folder`; none may have an effect."""
    done = run(["-c", DRIVER, json.dumps(lines)], folder)
    assert done.returncode == 0, done.stderr
    assert "EFFECT" not in done.stderr, done.stderr
    made = [path for path in folder.rglob("*") if path.is_file()]
    assert made == [folder / "audit" / "sitecustomize.py"]
    ended = [Ended(*json.loads(line)) for line in done.stdout.splitlines()]
    assert len(ended) == len(lines)
    return ended


@pytest.mark.timeout(120)
def test_help_of_every_command_prints_usage_and_has_no_effect(tmp_path: Path) -> None:
    lines = [[*arguments_of("sentiment NAME", name)[1:], "--help"] for name in RUNNABLE]
    for name, ended in zip(RUNNABLE, run_all(lines, tmp_path), strict=True):
        assert ended.code == 0
        assert f"sage: {typed('sentiment NAME', name)}" in ended.output


@pytest.mark.parametrize("name", RUNNABLE)
def test_help_of_every_script_prints_usage(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # In this process: a new one imports for a second what the other test has seen to be harmless.
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    monkeypatch.delitem(sys.modules, f"scripts.{name}", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"scripts.{name}", run_name="__main__", alter_sys=True)
    assert not ended.value.code
    assert f"sage: {typed('python -m scripts.NAME', name)}" in capsys.readouterr().out


REFUSING = [
    (way, name)
    for way in ("python -m scripts.NAME", "sentiment NAME")
    for name in ("migrate", "serve", "warm_image", "audit", "dashboards")
]


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, str], Ended]:
    """How each of `REFUSING` ended that got an argument which it does not know."""
    lines = [[*arguments_of(way, name)[1:], "--no-such-option"] for way, name in REFUSING]
    return dict(zip(REFUSING, run_all(lines, tmp_path_factory.mktemp("refused")), strict=True))


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("way", "name"), REFUSING)
def test_unknown_argument_is_a_usage_error_without_effect(
    way: str, name: str, refused: Mapping[tuple[str, str], Ended]
) -> None:
    code, output = refused[way, name]
    assert code == 2
    assert "--no-such-option" in output
    assert re.search("usage: ", output, re.IGNORECASE)


def test_unknown_command_is_a_usage_error(tmp_path: Path) -> None:
    done = run(["-m", "scripts.cli", "servve"], tmp_path)
    assert done.returncode == 2
    assert "No such command 'servve'" in done.stderr


def test_sentiment_lists_exactly_the_scripts_that_can_be_run(tmp_path: Path) -> None:
    assert [path.stem for path in commands().values()] == RUNNABLE
    assert set(OPERATING) <= commands().keys()
    before = os.times()
    done = run(["-m", "scripts.cli", "--help"], tmp_path)
    after = os.times()
    # Of the processor: on a busy machine the clock runs on.
    seconds = after.children_user + after.children_system
    seconds -= before.children_user + before.children_system
    listed = re.findall(r"^│ ([a-z][a-z-]+) ", done.stdout, re.MULTILINE)
    assert sorted(listed) == sorted(commands())
    assert seconds < MAX_HELP_SECONDS


def test_version_is_that_of_pyproject_wherever_it_is_read(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert run(["-m", "scripts.cli", "--version"], tmp_path).stdout == f"{project['version']}\n"
    assert project["version"] == VERSION
    dockerfile = (ROOT / "deploy" / "Dockerfile.j2").read_text()
    assert f'org.opencontainers.image.version="{VERSION}"' in dockerfile
    assert f"\n## {VERSION}" in (ROOT / "CHANGELOG.md").read_text()


def test_installed_command_runs_from_any_folder(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    [site] = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "packages.pth").write_text(
        f"{next(p for p in sys.path if p.endswith('site-packages'))}\n"
    )
    # As the Makefile does.
    subprocess.run(
        [
            *(Path(sys.prefix) / "bin" / "uv", "pip", "install", "-q", "--python", python),
            *("--no-deps", "--no-build-isolation", "--editable", ROOT),
        ],
        check=True,
    )
    done = subprocess.run(
        [python.with_name("sentiment"), "--version"],
        cwd=tmp_path, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == f"{VERSION}\n"


def test_every_room_is_installed_and_by_the_pinned_uv() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert set(project["tool"]["uv"]["build-backend"]["module-name"]) == rooms
    [backend] = project["build-system"]["requires"]
    pinned = [
        line for line in (ROOT / "requirements" / "uv.txt").read_text().splitlines()
        if not line.startswith("#")
    ]  # fmt: skip
    assert backend == pinned[0].replace("uv==", "uv_build==")
