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

LIBRARIES = ("alembic", "bentoml", "numpy", "pip", "pydantic", "sqlalchemy", "typer", "uv")
INSTALL = """
from core.late_packages import run_pip, run_uv
assert run_uv("--dry-run", "packaging")
assert run_pip("--dry-run", "packaging").returncode == 0
"""

BENCHMARK = f"""
import sys; sys.path.append({str(ROOT)!r})
from multiprocessing import get_context
from time import sleep
from loadtest.bench.own_process import own_process, safe_path
if __name__ == "__main__":
    with own_process() as process:
        process.submit(sleep, 0).result()
    with safe_path():
        alone = get_context("spawn").Process(target=sleep, args=(0,))
        alone.start()
    alone.join()
    assert alone.exitcode == 0
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
    for module in sys.stdlib_module_names.difference(LIBRARIES, rooms):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('planted')")
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


def test_process_of_a_benchmark_imports_nothing_from_there(
    planted: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A command is a script in a folder of its own, as this one is."""
    script = tmp_path_factory.mktemp("bin") / "sentiment"
    script.write_text(BENCHMARK)
    done = subprocess.run(
        [sys.executable, script], cwd=planted, check=False, capture_output=True, encoding="utf-8"
    )
    assert (done.returncode, done.stderr) == (0, "")
