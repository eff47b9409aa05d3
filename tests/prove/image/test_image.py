"""The image is built from this checkout and checked from outside, by docker and by podman.

podman reads its configuration from CONTAINERS_CONF, for machines where its defaults do not work.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.paths import ROOT
from loadtest.image.check import backend

TAG = "sentiment:proof"


def image(command: str, *options: str, tag: str = TAG, **environment: str) -> int:
    return subprocess.run(
        [sys.executable, "-m", "scripts.image", command, "--tag", tag, *options],
        cwd=ROOT,
        env=os.environ | environment,
        check=False,
    ).returncode


@pytest.fixture(scope="module", autouse=True)
def built(bentoml_home: Path) -> None:
    assert image("build", BENTOML_HOME=str(bentoml_home)) == 0


@pytest.fixture
def podman_tag() -> Iterator[str]:
    """The image's name in podman's own store."""
    tag = f"localhost/{TAG}"
    with subprocess.Popen([backend(""), "save", TAG], stdout=subprocess.PIPE) as saved:
        subprocess.run(["podman", "load", "-q"], stdin=saved.stdout, check=True)
    yield tag
    subprocess.run(["podman", "rmi", tag], check=True)


def test_image_passes_its_check() -> None:
    assert image("check") == 0


def test_image_passes_its_check_under_podman(podman_tag: str) -> None:
    assert image("check", "--engine", "podman", tag=podman_tag) == 0


def test_bill_of_materials_is_written() -> None:
    assert image("sbom") == 0
    assert (ROOT / "build" / "sbom.json").stat().st_size > 10_000
