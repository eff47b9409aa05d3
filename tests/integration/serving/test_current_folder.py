"""A command takes no code and no configuration from the folder in which somebody runs it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from sqlalchemy import URL

from core.paths import ROOT
from tests.serving import environment_of

LIBRARIES = ("alembic", "bentoml", "pip", "sqlalchemy", "uv")
INSTALL = """
from core.late_packages import run_pip, run_uv
assert run_uv("--dry-run", "packaging")
assert run_pip("--dry-run", "packaging").returncode == 0
"""


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A folder of another user, who hopes that root runs a command there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rooms = project["tool"]["uv"]["build-backend"]["module-name"]
    for package in (*rooms, *LIBRARIES):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('planted')")
        (tmp_path / package / "__main__.py").write_text("raise SystemExit('planted')")
    (tmp_path / "uv.toml").write_text("planted")
    below = tmp_path / "below"
    below.mkdir()
    return tmp_path


@pytest.mark.parametrize("command", [["migrate"], ["doctor"]], ids=" ".join)
def test_command_imports_nothing_from_there(
    command: list[str], planted: Path, database_url: URL
) -> None:
    environment = environment_of(
        planted / "home",
        DATABASE_URL=database_url.render_as_string(hide_password=False),
        REDIS_URL="redis://127.0.0.1:1/0",
        DATA_FOLDER=str(planted / "data"),
    )
    sentiment = Path(sys.executable).with_name("sentiment")
    done = subprocess.run(
        [sentiment, *command], cwd=planted, env=environment, check=False, capture_output=True,
        encoding="utf-8",
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert "planted" not in output.replace(str(planted), "")
    assert "schema" in output


@pytest.mark.parametrize("place", [".", "below"])
def test_packages_are_installed_without_configuration_from_there(planted: Path, place: str) -> None:
    driver = f"import sys; sys.path[:0] = [{str(ROOT)!r}]\n{INSTALL}"
    subprocess.run([sys.executable, "-P", "-c", driver], cwd=planted / place, check=True)
