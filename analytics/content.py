"""What a sample of the texts is like: sketches by the minute."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, literal_column, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.reader import Reader
from analytics.scope import Scope
from analytics.shape import Query
from analytics.tables import content_sketches
from core.background import Background
from core.postgres import DATABASE_FAILURES, timed
from core.types import VERSIONS, Prediction
from core.uuid7 import id_range, new_id
from stats.content import ContentSketch, describe

# A sketch is stored each minute, but only of so many texts: so no row tells of a single one.
SKETCH_SECONDS = 60.0
FEWEST_TEXTS = 20
# Texts that are longer take more than half a millisecond to describe.
MOST_CHARACTERS = 5_000
# Sketches that wait for PostgreSQL; the oldest go first.
MOST_WAITING = 60
# The sketches of a window that are read: a week of one process. Of more, a fixed choice by the
# random end of their ids.
MOST_READ = 10_080


class ContentSampler(Background):
    """Describes some of the texts that a model computed, and stores the sums.

    A sample, so it may lose some: what a process has not stored when it is killed, and what waits
    while PostgreSQL is away for longer than an hour.
    """

    def __init__(self, engine: AsyncEngine, *, texts_per_second: float) -> None:
        """Of each version, `texts_per_second` at most; 0: none."""
        self._engine = engine
        self._pause = 1 / texts_per_second if texts_per_second else None
        self._next = dict.fromkeys(VERSIONS, 0.0)
        self._sketches = {version: ContentSketch() for version in VERSIONS}
        self._waiting: deque[dict[str, Any]] = deque(maxlen=MOST_WAITING)

    def offer(self, predictions: Sequence[Prediction]) -> None:
        """Describe a text of `predictions`, if it is time for the next one.

        Cached answers do not count: the same text sent again and again is no other text. Neither
        do truncated texts, of which some words have no tokens.
        """
        now, version = time.monotonic(), predictions[0].version
        if self._pause is None or now < self._next[version]:
            return
        for prediction in predictions:
            is_whole = not prediction.truncated and prediction.text_characters <= MOST_CHARACTERS
            if is_whole and not prediction.cache_hit:
                self._next[version] = now + self._pause
                features = describe(prediction.text, prediction.token_count)
                self._sketches[version].add(features)
                return

    async def stop(self) -> None:
        await super().stop()
        await self.store()

    async def store(self) -> None:
        """Store the sketches that are of enough texts, and those that wait."""
        now = datetime.now(UTC)
        for version, sketch in self._sketches.items():
            if sketch.texts >= FEWEST_TEXTS:
                self._sketches[version] = ContentSketch()
                row = {"id": new_id(now), "created_at": now, "version": version}
                self._waiting.append(row | {"texts": sketch.texts, "sketch": sketch.to_bytes()})
        if not self._waiting:
            return
        rows = list(self._waiting)
        try:
            async with timed("insert"), self._engine.begin() as connection:
                # A commit whose reply was lost is not repeated.
                await connection.execute(
                    insert(content_sketches).on_conflict_do_nothing(index_elements=["id"]), rows
                )
        except DATABASE_FAILURES:
            return  # others log the outage; the next try is in a minute
        self._waiting.clear()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(SKETCH_SECONDS)
            await self.store()


async def sketches_of(reader: Reader, scope: Scope) -> list[bytes]:
    """The sketches of a scope's window, of all endpoints, whatever `randomised` says."""
    columns = content_sketches.c
    since, until = scope.span.since, scope.span.until
    low, high = id_range(since, until)
    chosen = select(columns.sketch).where(
        columns.id >= low,
        columns.id < high,
        columns.created_at >= since,
        columns.created_at < until,
    )
    if scope.version is not None:
        chosen = chosen.where(columns.version == scope.version)
    last_byte = func.get_byte(func.uuid_send(columns.id), literal_column("15"))
    chosen = chosen.order_by(last_byte, columns.id).limit(MOST_READ)
    return [row.sketch for row in await reader.select(Query(chosen))]
