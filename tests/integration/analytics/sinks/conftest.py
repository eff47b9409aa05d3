"""A log with sinks on a PostgreSQL of the test run: its outbox, its writer and its deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import UUID

import pyarrow.dataset as ds
import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.log.records import ComparisonRecord, TextStorage, to_record
from analytics.log.sinks.delivery import Sink, SinkDelivery
from analytics.log.sinks.outbox import FILE_BYTES, Outbox
from analytics.log.writer import LogWriter
from core.postgres import create_engine
from core.types import SINK_NAMES, Comparison, Prediction
from tests.integration.predictions import make_prediction
from tests.unit.fakes import counter


def count(name: str, sink: str, **labels: str) -> float:
    return counter(f"prediction_log_sink_{name}_total", sink=sink, **labels)


def parquet_ids(folder: Path) -> list[str]:
    """The ids in all files of a folder, with repeats; nothing else is in the files' places."""
    if not folder.exists():
        return []
    files = [str(path) for path in folder.rglob("*.parquet") if not path.name.startswith(".")]
    if not files:
        return []
    return [str(id_) for id_ in ds.dataset(files).to_table(columns=["id"])["id"].to_pylist()]


class SinkLog:
    """Stores predictions as the shipper does."""

    def __init__(self, engine: AsyncEngine, writing: AsyncEngine, spool: Path) -> None:
        self.engine = engine
        self.spool = spool
        self.writing = writing
        self.outbox = self.open_outbox()
        self.writer = LogWriter(writing, (), self.outbox)

    def open_outbox(self, max_predictions: int = 1_000_000, file_bytes: int = FILE_BYTES) -> Outbox:
        return Outbox(
            self.spool,
            SINK_NAMES,
            sync=False,
            max_predictions=max_predictions,
            file_bytes=file_bytes,
        )

    def restart(self, **options: int) -> None:
        """As a new shipper after the end of this one."""
        self.outbox.close()
        self.outbox = self.open_outbox(**options)
        self.writer = LogWriter(self.writing, (), self.outbox)

    async def store(
        self,
        number: int = 1,
        predictions: Sequence[Prediction] | None = None,
        comparisons: Sequence[Comparison] = (),
        text_storage: TextStorage = "hash",
    ) -> list[str]:
        made = predictions or [make_prediction(f"text {n}") for n in range(number)]
        await self.writer.write(
            [to_record(prediction, text_storage) for prediction in made],
            [ComparisonRecord.of(comparison) for comparison in comparisons],
        )
        return [str(prediction.id) for prediction in made]

    async def count_stored(self, ids: Sequence[str]) -> int:
        """How many of the predictions PostgreSQL has."""
        counted = text("SELECT count(*) FROM predictions WHERE id = ANY(:ids)")
        async with self.engine.connect() as connection:
            return int(await connection.scalar(counted, {"ids": list(map(UUID, ids))}) or 0)

    def delivery(
        self, sink: Sink, max_predictions: int = 1_000_000, retry_seconds: float = 0.05
    ) -> SinkDelivery:
        return SinkDelivery(
            sink,
            self.outbox,
            self.engine,
            max_predictions=max_predictions,
            max_retry_seconds=retry_seconds,
        )

    @asynccontextmanager
    async def delivering(self, *deliveries: SinkDelivery) -> AsyncIterator[None]:
        """Run deliveries until the block ends; what waits then still waits."""
        ending = asyncio.Event()
        running = [asyncio.create_task(delivery.run(ending)) for delivery in deliveries]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            for task in running:
                with suppress(asyncio.CancelledError):
                    await task

    async def finish(self, *deliveries: SinkDelivery) -> None:
        """Deliver once what waits."""
        ending = asyncio.Event()
        ending.set()
        async with asyncio.timeout(20):
            await asyncio.gather(*(delivery.run(ending) for delivery in deliveries))


@pytest.fixture(scope="module")
def sink_database(named_database: Callable[[str], URL]) -> URL:
    """One database for the tests of a module: each counts only what it has stored itself."""
    return named_database("sinks")


@pytest.fixture
async def log(sink_database: URL, tmp_path: Path) -> AsyncIterator[SinkLog]:
    reading, writing = (
        create_engine(sink_database, pool_size=1, timeout_seconds=5) for _ in range(2)
    )
    made = SinkLog(reading, writing, tmp_path / "spool")
    yield made
    made.outbox.close()
    await reading.dispose()
    await writing.dispose()
