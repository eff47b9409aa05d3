"""What several unit tests stand on: a model store, a prediction path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store import model_store_at
from tests.unit.fakes import Setup


@pytest.fixture
def model_store(tmp_path: Path) -> Iterator[Path]:
    """An empty BentoML model store in place of this user's."""
    folder = tmp_path / "models"
    folder.mkdir()
    with model_store_at(folder):
        yield folder


@pytest.fixture
def setup() -> Setup:
    return Setup()
