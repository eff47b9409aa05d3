"""The measured models: the saved one, and one of base size."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.paths import ROOT
from core.settings import get_settings
from runners.model_store import SavedModel, find_model


def served_model() -> SavedModel:
    """Version v1 as `make serve` serves it.

    Raises:
        bentoml.exceptions.NotFound: it is not in the model store.
    """
    return find_model(get_settings().model_tag("v1"))


@contextmanager
def base_size_model() -> Iterator[SavedModel]:
    """A DistilBERT of base size with every engine that runs here, in a store of its own.

    Building it takes minutes.
    """
    with tempfile.TemporaryDirectory(prefix="bench-base-") as folder:
        home, checkpoint = Path(folder) / "home", Path(folder) / "checkpoint"
        home.mkdir()
        checkpoint.mkdir()
        for file in served_model().folder.glob("tokenizer*.json"):
            shutil.copy(file, checkpoint)
        output = subprocess.run(
            [sys.executable, "-m", "loadtest.bench.base_size", str(checkpoint)],
            cwd=ROOT,
            env=os.environ | {"BENTOML_HOME": str(home)},
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ).stdout
        shutil.rmtree(checkpoint)
        facts: dict[str, Any] = json.loads(output.splitlines()[-1])
        lists = {name: tuple(facts[name]) for name in ("labels", "engines")}
        yield SavedModel(**(facts | lists | {"folder": Path(facts["folder"])}))


def bentoml_home(model: SavedModel) -> Path:
    """The home whose model store `model` is in."""
    return model.folder.parent.parent.parent
