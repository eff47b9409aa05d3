"""The image is built from this checkout and checked from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from core.paths import ROOT

TAG = "sentiment:proof"


def image(command: str, bentoml_home: Path) -> int:
    return subprocess.run(
        [sys.executable, "-m", "scripts.image", command, "--tag", TAG],
        cwd=ROOT,
        env=os.environ | {"BENTOML_HOME": str(bentoml_home)},
        check=False,
    ).returncode


def test_image_builds_and_passes_its_check(bentoml_home: Path) -> None:
    assert image("build", bentoml_home) == 0
    assert image("check", bentoml_home) == 0
