"""BentoML model stores other than this user's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore

from core.types import Version
from runners.model_store import SavedModel, find_model, model_name


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
