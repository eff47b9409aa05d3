"""BentoML model stores other than this user's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore

from core.paths import ROOT
from core.types import Version
from runners.model_store import SavedModel, find_model, model_name

SAVE_SECONDS = 600.0


@contextmanager
def model_store_at(folder: Path) -> Iterator[None]:
    """Until the block ends, what this process reads and saves is in `folder`."""
    BentoMLContainer.model_store.set(ModelStore(folder))
    try:
        yield
    finally:
        BentoMLContainer.model_store.reset()


def saved_model(bentoml_home: Path, version: Version) -> SavedModel:
    """The newest model of `version` in the store of `bentoml_home`."""
    with model_store_at(bentoml_home / "models"):
        return find_model(f"{model_name(version)}:latest")


class SavingModels:
    """The command that saves both models, which takes minutes, beside tests that need none."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._process = subprocess.Popen(
            ["nice", sys.executable, "-m", "scripts.save_models"],
            cwd=ROOT,
            env=os.environ | {"BENTOML_HOME": str(home)},
        )

    def wait(self) -> Path:
        assert self._process.wait(SAVE_SECONDS) == 0
        return self._home

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
