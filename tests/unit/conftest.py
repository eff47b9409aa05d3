"""What several unit tests stand on: a model store, a prediction path, a prediction log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from analytics.prediction_log import PredictionLog
from tests.unit.fakes import FakeWriter, Setup


@pytest.fixture
def model_store(tmp_path: Path) -> Iterator[Path]:
    """An empty BentoML model store in place of this user's."""
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.models import ModelStore

    folder = tmp_path / "models"
    folder.mkdir()
    BentoMLContainer.model_store.set(ModelStore(folder))
    yield folder
    BentoMLContainer.model_store.reset()


@pytest.fixture
def setup() -> Setup:
    return Setup()


@pytest.fixture
def writer() -> FakeWriter:
    return FakeWriter()


MakeLog = Callable[..., PredictionLog]


@pytest.fixture
async def make_log(writer: FakeWriter) -> AsyncIterator[MakeLog]:
    logs = []

    def make(*, max_pending: int = 1_000) -> PredictionLog:
        log = PredictionLog(writer, flush_seconds=0.01, max_pending=max_pending)
        log.start()
        logs.append(log)
        return log

    yield make
    for log in logs:
        await log.stop(0.01)
