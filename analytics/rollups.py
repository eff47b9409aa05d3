"""Rolls predictions up as they are inserted: one statement, so that each is counted once.

A crash undoes the rows and their counts together, and a row that was there already, from an earlier
attempt or another writer, is not returned by the insert and so not counted again.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from sqlalchemy import text

from analytics.tables import BUCKET_SECONDS
from core.types import SENTIMENTS
from stats.entropy import entropy_sql
from stats.histogram import (
    CONFIDENCE,
    LATENCY_MS,
    TEXT_CHARACTERS,
    TOKEN_COUNT,
    Bins,
)

# Rollups are updated by one transaction at a time: two in different orders would wait for each
# other. Any number that no other program uses on this database: the ASCII of "rollups_".
WRITERS_LOCK = text(f"SELECT pg_advisory_xact_lock({0x726F6C6C7570735F})")

MeasureName = Literal["latency_ms", "confidence", "text_characters", "token_count"]
BINS: dict[MeasureName, Bins] = {
    "latency_ms": LATENCY_MS,
    "confidence": CONFIDENCE,
    "text_characters": TEXT_CHARACTERS,
    "token_count": TOKEN_COUNT,
}

# Without statistics of what it has just made, the planner takes a thousand groups for one.
PLANNED = text("SET LOCAL enable_nestloop = off")

ENTROPY = entropy_sql([f"score_{sentiment}" for sentiment in SENTIMENTS])

# The one endpoint that is told apart: what /predict/ab deals out is compared.
ROUTED = "endpoint = '/predict/ab' AS routed"
_GROUP = "model_version_id, routed, cache_hit"
COUNTS = ", ".join(
    f"count(*) FILTER (WHERE sentiment = '{sentiment}') AS {sentiment}" for sentiment in SENTIMENTS
)
_SUMMED = (*SENTIMENTS, "truncated", "confidence_sum", "latency_ms_sum", "entropy_sum")
_ARRAYS = [f"{measure}_{part}" for measure in BINS for part in ("bins", "counts")]
_BINNED = ", ".join(f"{bins.sql(measure)} AS {measure}" for measure, bins in BINS.items())


def _added(measure: str) -> str:
    """The histogram that is there and the new one, as one."""
    return (
        f"({measure}_bins, {measure}_counts) = ("
        "SELECT array_agg(bin ORDER BY bin), array_agg(predictions ORDER BY bin) FROM ("
        "SELECT bin, sum(predictions)::bigint AS predictions FROM ("
        f"SELECT * FROM unnest(known.{measure}_bins, known.{measure}_counts) UNION ALL "
        f"SELECT * FROM unnest(excluded.{measure}_bins, excluded.{measure}_counts)"
        ") AS either (bin, predictions) GROUP BY bin) AS both_of_them)"
    )


_MEASURED = ", ".join(f"({number}, {measure})" for number, measure in enumerate(BINS))
_HISTOGRAMS = ", ".join(
    f"array_agg({column} ORDER BY bin) FILTER (WHERE measure = {number}) AS {measure}_{part}"
    for number, measure in enumerate(BINS)
    for part, column in (("bins", "bin"), ("counts", "predictions"))
)
_UPDATED = ", ".join(
    [
        *(f"{name} = known.{name} + excluded.{name}" for name in _SUMMED),
        *(_added(measure) for measure in BINS),
    ]
)


def _levels(name: str, keys: str, sums: str) -> str:
    """`name`_3600 made of `name`_60, `name`_86400 made of that, and `name`, all of them."""
    ctes = []
    for smaller, seconds in pairwise(BUCKET_SECONDS):
        bucket = f"date_bin('{seconds} s', bucket, TIMESTAMPTZ 'epoch')"
        ctes.append(
            f"{name}_{seconds} AS (SELECT {seconds} AS seconds, {bucket} AS bucket, {keys}, {sums} "
            f"FROM {name}_{smaller} GROUP BY {bucket}, {keys})"
        )
    every = " UNION ALL ".join(f"SELECT * FROM {name}_{seconds}" for seconds in BUCKET_SECONDS)
    return ", ".join([*ctes, f"{name} AS ({every})"])


INSERT_AND_ROLL_UP = text(f"""
WITH inserted AS (
    INSERT INTO predictions SELECT * FROM predictions_staging ON CONFLICT DO NOTHING
    RETURNING date_bin('60 s', created_at, TIMESTAMPTZ 'epoch') AS bucket, model_version_id,
        {ROUTED}, cache_hit, sentiment, truncated, confidence AS sure, latency_ms AS took,
        {ENTROPY} AS entropy, {_BINNED}
), counted_60 AS (
    SELECT 60 AS seconds, bucket, {_GROUP}, {COUNTS},
        count(*) FILTER (WHERE truncated) AS truncated,
        sum(sure::double precision) AS confidence_sum,
        sum(took::double precision) AS latency_ms_sum, sum(entropy) AS entropy_sum
    FROM inserted GROUP BY bucket, {_GROUP}
), {_levels("counted", _GROUP, ", ".join(f"sum({name}) AS {name}" for name in _SUMMED))}
, binned_60 AS (
    SELECT 60 AS seconds, bucket, {_GROUP}, measure, bin, count(*) AS predictions
    FROM inserted CROSS JOIN LATERAL (VALUES {_MEASURED}) AS measured (measure, bin)
    GROUP BY bucket, {_GROUP}, measure, bin
), {_levels("binned", f"{_GROUP}, measure, bin", "sum(predictions)::bigint AS predictions")}
, histograms AS (
    SELECT seconds, bucket, {_GROUP}, {_HISTOGRAMS} FROM binned GROUP BY seconds, bucket, {_GROUP}
)
INSERT INTO rollups AS known
    (bucket_seconds, bucket, {_GROUP}, {", ".join(_SUMMED)}, {", ".join(_ARRAYS)})
SELECT seconds, bucket, {_GROUP}, {", ".join(_SUMMED)}, {", ".join(_ARRAYS)}
FROM counted JOIN histograms USING (seconds, bucket, {_GROUP})
ON CONFLICT ON CONSTRAINT pk_rollups DO UPDATE SET {_UPDATED}
""")
