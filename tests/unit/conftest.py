"""What several unit tests stand on: a model store, a prediction path, a prediction log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from analytics.prediction_log import PredictionLog
from tests.store import model_store_at
from tests.unit.fakes import FakeWriter, Setup


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
