"""Every tutorial is followed as it is written, in a clone with an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.paths import ROOT
from loadtest.ports import free_port
from tests.prove.tutorials.page import is_as_shown, steps
from tests.prove.tutorials.terminal import terminal
from tests.run import killed_temporary_folder

FOLDER = ROOT / "docs" / "tutorials"
PAGES = sorted(path.stem for path in FOLDER.glob("*.md"))
PORT = "3000"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What a user has after `git clone` and a first start, in a folder that is closed to others."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    environment = os.environ | {"BENTOML_HOME": str(folder / "bentoml")}
    subprocess.run(["make", "assets", "models"], cwd=folder, env=environment, check=True)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", PAGES)
def test_commands_of_a_tutorial_print_what_it_shows(name: str, clone: Path, tmp_path: Path) -> None:
    # A store of its own, for imports.
    shutil.copytree(clone / "bentoml", tmp_path / "bentoml")
    port = str(free_port())
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {
        "TMPDIR": killed_temporary_folder(),
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "DATA_FOLDER": str(tmp_path / "data"),
        "PORT": port,
        "SENTIMENT_URL": url,
        "LC_ALL": "C.UTF-8",
        "COLUMNS": "80",
    }
    log = tmp_path / "server.log"
    with terminal(clone, environment) as shell:
        for step in steps((FOLDER / f"{name}.md").read_text(encoding="utf-8")):
            command = step.command.replace(f":{PORT}", f":{port}")
            if "not run" in step.how:
                continue
            if "server" in step.how:
                shell.stop_servers()
                shell.serve(command, url, log)
                continue
            status, printed = shell.run(command)
            printed = printed.replace(f":{port}", f":{PORT}")
            assert (status != 0) == ("fails" in step.how), f"{command}\n{printed}"
            assert is_as_shown(step.shown, printed), (
                f"$ {command}\nshown:\n{step.shown}\nprinted:\n{printed}"
            )
