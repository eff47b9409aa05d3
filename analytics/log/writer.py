"""Writes log entries to PostgreSQL and adds them to the rollups, each entry once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from analytics import sql
from analytics.erasures import erased_among
from analytics.log.dimension_keys import DimensionKeys
from analytics.log.records import ComparisonRecord
from analytics.log.sinks.outbox import Outbox
from analytics.log.sinks.rows import stored_characters
from analytics.partitions import begin_of_day, make_partitions
from analytics.rollups import KEEP_PARTITIONS, WRITERS_LOCK
from analytics.tables import model_versions
from core.postgres import server_now, timed
from core.types import SENTIMENTS, Failure, ModelVersion, Prediction
from core.uuid7 import new_id, time_of

_INSERT_PREDICTIONS = sql.load("insert_predictions")
_COUNT_PRESENT = sql.load("count_present")
_ASSIGN_SUBJECTS = sql.load("assign_subjects")
_INSERT_COMPARISONS = sql.load("insert_comparisons")
_INSERT_FAILURES = sql.load("insert_failures")
_KEY_COMPARED_TEXTS = sql.load("key_compared_texts")
_KEY_ASSIGNMENTS = sql.load("key_assignments")
_UNSTAGE = text("DELETE FROM predictions_staging WHERE id = ANY(:ids)")
_UNSTAGE_COMPARISONS = text(
    "DELETE FROM comparisons_staging "
    "WHERE v1_prediction_id = ANY(:ids) OR v2_prediction_id = ANY(:ids)"
)
# PostgreSQL has no statistics of rows that the same statement makes. It expects one group where
# there are a thousand, and would loop over them for each row.
_WITHOUT_NESTED_LOOPS = text("SET LOCAL enable_nestloop = off")

# A field of an entry goes to the column of its name. The exceptions: `model` and the experiment of
# `assignment` are stored as their keys, each score has a column of its own, and hashes are keyed.
_OWN_NAME = tuple(
    field
    for field in Prediction.__struct_fields__
    if field
    not in {"model", "scores", "text", "text_sha256", "assignment", "subject_key", "long_text"}
)
PREDICTION_COLUMNS = (
    *_OWN_NAME,
    "text",
    "model_version_id",
    *(f"score_{sentiment}" for sentiment in SENTIMENTS),
    "experiment_id",
    "text_sha256",
    "subject_key",
    "hash_key_id",
)
COMPARISON_COLUMNS = ComparisonRecord.__struct_fields__
FAILURE_COLUMNS = ("id", "created_at", "endpoint", "texts", "arm_group", "model_version_id")

# What `check` stores and rolls back; no sequence gives a negative key.
_CHECKED_MODEL = ModelVersion("v1", "check", "check")
_CHECKED_KEY = -1

_own_name_values = attrgetter(*_OWN_NAME)


class NotInserted(RuntimeError):
    """PostgreSQL has left out rows that it did not have."""


class LogWriter:
    """Writes a batch in one transaction: COPY to staging tables, then inserts that skip known ids.

    A retry is safe when a commit succeeded and only its reply was lost: the rows that are skipped
    are not counted again. After an error, all connections of `engine` are closed: nobody else may
    use it.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        hash_keys: Sequence[bytes] = (),
        outbox: Outbox | None = None,
        *,
        text_days: int = 0,
    ) -> None:
        """`hash_keys`: the keys of LOG_HASH_KEY, newest first; without, PostgreSQL keeps one.

        `outbox` gets the ids of the predictions that were not stored before, if there are sinks.
        A text is not stored if it comes when those of its day have expired, after `text_days`.
        """
        self._engine = engine
        self._text_days = text_days
        self._outbox = outbox
        self._keys = DimensionKeys(engine, hash_keys)

    async def write(
        self,
        predictions: Sequence[Prediction],
        comparisons: Sequence[ComparisonRecord] = (),
        failures: Sequence[Failure] = (),
    ) -> int:
        """Write all of the batch or nothing. The predictions of every comparison are in the batch.

        Returns the number of predictions that were not stored before.

        Raises:
            DATABASE_FAILURES: PostgreSQL is away, or refuses the batch.
        """
        async with self._fresh_after_failure():
            await self._keys.resolve(predictions, failures)
            await self._keys.resolve_pairs(predictions, comparisons)
            async with timed("copy"), self._engine.begin() as connection:
                await self._keys.confirm(connection)
                new = await store(
                    connection,
                    self._keys,
                    predictions,
                    comparisons,
                    failures,
                    texts_since=await self._texts_since(connection),
                )
                if new and self._outbox is not None:
                    await self._outbox.append(*await stored_characters(connection, predictions))
                return new

    async def _texts_since(self, connection: AsyncConnection) -> datetime | None:
        """The begin of the first day whose texts are kept; None: all are."""
        if not self._text_days:
            return None
        # As in partition_maintenance, a text is too old by both clocks or not at all.
        now = min(datetime.now(UTC), await server_now(connection))
        return begin_of_day(now.date(), days_ago=self._text_days)

    async def check(self) -> None:
        """Store a prediction without fault, and roll it back.

        Raises:
            Exception: PostgreSQL is away, or stores no prediction at all.
        """
        now = datetime.now(UTC)
        keys = DimensionKeys(self._engine)
        keys.models[_CHECKED_MODEL] = _CHECKED_KEY
        async with self._fresh_after_failure(), self._engine.connect() as connection:
            # Its key is given, because a rollback does not return one to the sequence.
            await connection.execute(
                insert(model_versions).values(
                    id=_CHECKED_KEY, first_seen=now, **_CHECKED_MODEL._asdict()
                )
            )
            await store(connection, keys, [_checked_prediction(now)])
            await connection.rollback()

    @asynccontextmanager
    async def _fresh_after_failure(self) -> AsyncIterator[None]:
        """After an error, forget the keys and close the connections.

        A connection may hold plans of a table that has changed, or lead to the wrong server, and a
        key may belong to a database that was restored. The next try starts without them.
        """
        try:
            yield
        except Exception:
            self._keys.forget()
            await self._engine.dispose()
            raise


async def store(
    connection: AsyncConnection,
    keys: DimensionKeys,
    predictions: Sequence[Prediction],
    comparisons: Sequence[ComparisonRecord] = (),
    failures: Sequence[Failure] = (),
    *,
    texts_since: datetime | None = None,
) -> int:
    """Write the batch in the connection's transaction; `keys` has resolved it.

    Texts of predictions from before `texts_since` are left out.

    Returns the number of predictions that were not stored before.
    """
    # Two tries of a repeated request have the same ids; the first counts.
    by_id = {prediction.id: prediction for prediction in reversed(predictions)}
    rows = [_prediction_row(prediction, keys, texts_since) for prediction in by_id.values()]
    await connection.execute(KEEP_PARTITIONS)
    # Before the lock: no time-out of PostgreSQL ends a COPY that waits for a frozen machine.
    await _copy_to_staging(connection, "predictions", PREDICTION_COLUMNS, rows)
    if comparisons:
        links = list(map(attrgetter(*COMPARISON_COLUMNS), comparisons))
        await _copy_to_staging(connection, "comparisons", COMPARISON_COLUMNS, links)
    if failures:
        own_name_values = attrgetter(*FAILURE_COLUMNS[:-1])
        counts = [(*own_name_values(failure), keys.models[failure.model]) for failure in failures]
        await _copy_to_staging(connection, "failures", FAILURE_COLUMNS, counts)
    await connection.execute(WRITERS_LOCK)
    # Under the lock: an erasure that has it sees what is stored, and its tombstones are seen here.
    if erased := await erased_among(connection, keys.hashes, predictions, comparisons):
        await connection.execute(_UNSTAGE, {"ids": list(erased)})
        if comparisons:
            await connection.execute(_UNSTAGE_COMPARISONS, {"ids": list(erased)})
    if not keys.hashes.is_converted:
        await _key_rows_of_earlier_releases(connection, keys, predictions)
    days = {time_of(prediction.id).date() for prediction in predictions}
    await make_partitions(connection, days)
    await connection.execute(_WITHOUT_NESTED_LOOPS)
    new = (await connection.execute(_INSERT_PREDICTIONS)).scalar() or 0
    if new < len(by_id.keys() - erased):
        await _check_present(connection, sorted(by_id.keys() - erased))
    if any(prediction.assignment is not None for prediction in predictions):
        await connection.execute(_ASSIGN_SUBJECTS)
    if comparisons:
        await connection.execute(_INSERT_COMPARISONS)
    if failures:
        await connection.execute(_INSERT_FAILURES)
    return int(new)


async def _check_present(connection: AsyncConnection, ids: Sequence[UUID]) -> None:
    """Check that predictions which an insert left out were there before.

    Raises:
        NotInserted: some were not.
    """
    bounds = {"ids": ids, "first": ids[0], "last": ids[-1]}
    missing = len(ids) - (await connection.scalar(_COUNT_PRESENT, bounds) or 0)
    if missing:
        raise NotInserted(
            f"PostgreSQL inserts {missing:,} predictions without an error, and does not have them; "
            "a trigger or a rule of the table predictions leaves rows out"
        )


def _checked_prediction(now: datetime) -> Prediction:
    return Prediction(
        id=new_id(now),
        created_at=now,
        endpoint="/predict",
        model=_CHECKED_MODEL,
        sentiment="positive",
        confidence=1.0,
        scores={"negative": 0.0, "positive": 1.0},
        latency_ms=1.0,
        cache_hit=False,
        truncated=False,
        token_count=1,
        text_characters=1,
    )


async def _key_rows_of_earlier_releases(
    connection: AsyncConnection, keys: DimensionKeys, predictions: Sequence[Prediction]
) -> None:
    """Key the rows of the batch's compared texts and subjects, so that none counts twice."""
    digests = [
        prediction.text_sha256
        for prediction in predictions
        if prediction.id in keys.text_hash_keys and prediction.text_sha256 is not None
    ]
    if digests:
        await connection.execute(_KEY_COMPARED_TEXTS, {"digests": digests})
    assignments = [p.assignment for p in predictions if p.assignment is not None]
    if assignments:
        subjects = {
            "experiments": [keys.experiments[assignment.experiment] for assignment in assignments],
            "subjects": [assignment.subject_key for assignment in assignments],
        }
        await connection.execute(_KEY_ASSIGNMENTS, subjects)


def _prediction_row(
    prediction: Prediction, keys: DimensionKeys, texts_since: datetime | None
) -> tuple[Any, ...]:
    """A row in the order of `PREDICTION_COLUMNS`."""
    keeps_text = texts_since is None or prediction.created_at >= texts_since
    assignment, digest = prediction.assignment, prediction.text_sha256
    subject = prediction.hashed_subject
    hashes, has_hash = keys.hashes, digest is not None or subject is not None
    hash_key = keys.text_hash_keys.get(prediction.id, hashes.current)
    # A subject's key is that of its A/B test, or of the two models that it compares.
    test = None if assignment is None else assignment.experiment
    subject_hash_key = hash_key if test is None else keys.experiment_hash_keys[test]
    return (
        *_own_name_values(prediction),
        (prediction.text or None) if keeps_text else None,
        keys.models[prediction.model],
        # NULL is a class that the checkpoint does not have.
        *map(prediction.scores.get, SENTIMENTS),
        None if test is None else keys.experiments[test],
        None if digest is None else hashes.hash(digest, hash_key),
        None if subject is None else hashes.hash(subject, subject_hash_key),
        hash_key if has_hash else None,
    )


async def _copy_to_staging(
    connection: AsyncConnection, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> None:
    """COPY `rows` into a table like `table`, which the transaction's end drops."""
    await connection.execute(
        sql.ddl(
            "CREATE TEMP TABLE %(table)s_staging (LIKE %(table)s INCLUDING DEFAULTS) "
            "ON COMMIT DROP",
            table=table,
        )
    )
    raw = await connection.get_raw_connection()
    await raw.driver_connection.copy_records_to_table(  # type: ignore[union-attr]
        f"{table}_staging", records=rows, columns=columns, schema_name="pg_temp"
    )
