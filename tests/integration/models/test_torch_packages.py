"""torch and the packages around it are installed at their first use, as real pip and uv do it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from core.paths import ROOT

# As a caller of it imports them: right after, in the same process.
PROGRAM = """
import sys
from pathlib import Path
from core.late_packages import PackagesUnavailable
from models.torch_packages import ensure_torch_packages
try:
    ensure_torch_packages(Path(sys.argv[1]), *sys.argv[2:])
except PackagesUnavailable as error:
    sys.exit(f"unavailable: {error}")
from importlib.metadata import version
import tinytorch, tinypeft
print("imported", version("tinytorch"), version("tinypeft"))
"""


def write_wheel(folder: Path, name: str, version: str) -> Path:
    """Write a wheel with one module of no content."""
    folder.mkdir(exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@dataclass(frozen=True)
class Machine:
    """A virtual environment, and the folders in which its pip and its uv find packages."""

    folder: Path

    @property
    def of_pip(self) -> Path:
        return self.folder / "of-pip"

    @property
    def of_uv(self) -> Path:
        return self.folder / "of-uv"

    def ensure(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(PROGRAM, *arguments)

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        python = self.folder / "venv" / "bin" / "python"
        own = {name: value for name, value in os.environ.items() if name[:3] not in ("PIP", "UV_")}
        return subprocess.run(
            [python, "-c", program, self.folder, *arguments],
            cwd=ROOT,
            env=own
            | {
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": str(self.of_pip),
                "PIP_CONFIG_FILE": "/dev/null",
            }
            | {
                "UV_NO_INDEX": "1",
                "UV_FIND_LINKS": str(self.of_uv),
                "UV_CACHE_DIR": str(self.folder),
            },
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine on which uv finds all but torch, and pip finds nothing."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    [site] = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "packages.pth").write_text(
        f"{next(path for path in sys.path if path.endswith('site-packages'))}\n"
    )
    machine = Machine(tmp_path)
    machine.of_pip.mkdir()
    wheel = write_wheel(machine.of_uv, "tinypeft", "3.0")
    digest = sha256(wheel.read_bytes()).hexdigest()
    (tmp_path / "torch.txt").write_text("# A comment.\ntinytorch==2.0\n")
    (tmp_path / "torch.lock").write_text(
        f"tinypeft==3.0 ; python_version >= '3' \\\n    --hash=sha256:{digest}\n"
        "tinyelsewhere==1.0 ; sys_platform == 'never'\n"
    )
    return machine


def test_cpu_build_of_pips_index_is_installed_once(machine: Machine) -> None:
    write_wheel(machine.of_pip, "tinytorch", "2.0")
    write_wheel(machine.of_pip, "tinytorch", "2.0+cpu")
    first, second = machine.ensure(), machine.ensure()
    assert first.returncode == 0, first.stderr
    assert first.stderr.startswith(
        "installing tinytorch and 1 packages for importing, training or tests, about "
    )
    assert first.stdout == "imported 2.0+cpu 3.0\n"
    assert second.stdout == "imported 2.0+cpu 3.0\n"
    assert second.stderr == ""


def test_cpu_build_comes_from_pytorch_where_pip_has_a_cuda_build_only(machine: Machine) -> None:
    write_wheel(machine.of_pip, "tinytorch", "2.0")
    write_wheel(machine.of_uv, "tinytorch", "2.0+cpu")
    done = machine.ensure()
    assert "pip's index has no CPU build of torch; fetching it from pytorch.org\n" in done.stderr
    assert done.stdout == "imported 2.0+cpu 3.0\n"


def test_another_version_than_the_pinned_one_is_replaced(machine: Machine) -> None:
    write_wheel(machine.of_pip, "tinytorch", "2.0+cpu")
    write_wheel(machine.of_pip, "tinytorch", "2.1+cpu")
    assert machine.ensure().returncode == 0
    (machine.folder / "torch.txt").write_text("tinytorch==2.1\n")
    assert machine.ensure().stdout.endswith("imported 2.1+cpu 3.0\n")


def test_no_cpu_build_anywhere_is_an_error_that_names_the_option(machine: Machine) -> None:
    write_wheel(machine.of_pip, "tinytorch", "2.0")
    done = machine.ensure()
    assert done.returncode == 1
    assert done.stderr.endswith(
        "unavailable: tinytorch==2.0+cpu cannot be installed. "
        "`sentiment install-torch --index URL` takes it from another index.\n"
    )


def test_index_without_a_cpu_build_is_named(machine: Machine) -> None:
    index = machine.folder.as_uri()
    done = machine.ensure(index)
    assert done.returncode == 1
    assert f"unavailable: {index} has no tinytorch==2.0+cpu for this machine:\n" in done.stderr


def test_package_whose_hash_differs_is_an_error(machine: Machine) -> None:
    write_wheel(machine.of_pip, "tinytorch", "2.0+cpu")
    with (machine.folder / "torch.lock").open("a") as lock:
        lock.write(f"tinyforged==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    write_wheel(machine.of_uv, "tinyforged", "1.0")
    done = machine.ensure()
    assert done.returncode == 1
    assert "Hash mismatch for `tinyforged==1.0`" in done.stderr
    assert done.stderr.endswith("torch.lock pins cannot be installed\n")


def test_packages_of_a_command_are_installed_once(machine: Machine) -> None:
    program = """
import sys
from pathlib import Path
from core.late_packages import ensure_packages
ensure_packages(Path(sys.argv[1]) / "torch.lock", "scoring files", 55)
import tinypeft
"""
    first, second = machine.run(program), machine.run(program)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert first.stderr.startswith("installing tinypeft for scoring files, about 55 MB\n")
    # It may be the output of `sentiment score`, or a JSON document.
    assert (first.stdout, second.stdout, second.stderr) == ("", "", "")


def test_folder_without_pins_is_an_error(machine: Machine) -> None:
    (machine.folder / "torch.lock").unlink()
    done = machine.ensure()
    assert done.stderr == (
        f"unavailable: {machine.folder}/torch.lock, which pins packages that are needed here, "
        "is missing\n"
    )
