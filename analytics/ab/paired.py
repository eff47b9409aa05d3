"""v1 and v2 over texts that both answered, by /predict/ab-compare; each text once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import anyio.to_thread
from pydantic import BaseModel, Field
from sqlalchemy import RowMapping

from analytics.ab.common import Interval, Model, Verdict, model, models_of, newest
from analytics.buckets import MINUTE, floor
from analytics.reader import Reader
from analytics.sql_fragment import rolled_up
from analytics.time_range import EARLIEST, TimeRange
from core.types import SENTIMENTS, Sentiment, Version
from stats.outcomes import PairedOutcomes


class SentimentPair(BaseModel):
    v1: Sentiment
    v2: Sentiment
    texts: int


class PairedComparison(BaseModel):
    """Of /predict/ab-compare, each text once. Differences are v2 minus v1, intervals of 95 %."""

    since: datetime
    until: datetime
    models: dict[Version, Model] = Field(description="the pair that was compared last")
    pairs: int
    table: list[SentimentPair] = Field(description="what v1 and v2 said; empty cells are absent")
    agreement: float | None
    kappa: float | None = Field(description="agreement beyond chance (Cohen)")
    confidence_difference: float | None
    confidence_difference_interval: Interval | None
    labelled: int
    both_right: int
    only_v1_right: int
    only_v2_right: int
    none_right: int
    v1_accuracy: float | None
    v2_accuracy: float | None
    accuracy_difference: float | None
    accuracy_difference_interval: Interval | None = Field(description="of one planned look (Tango)")
    mcnemar_p: float | None = Field(description="exact; of one planned look")
    always_valid_interval: Interval | None
    always_valid_p: float | None
    verdict: Verdict


async def compare_pairs_of(
    reader: Reader, since: datetime | None, until: datetime
) -> PairedComparison | None:
    pair = await newest(
        reader,
        "comparison_rollups",
        "v1_model_version_id AS v1, v2_model_version_id AS v2",
        until,
    )
    if pair is None:
        return None
    models = await models_of(reader, **pair)
    facts = rolled_up(
        "comparison_rollups", TimeRange(since or EARLIEST, until),
        "v1_model_version_id = :v1 AND v2_model_version_id = :v2", dict(pair),
    )  # fmt: skip
    sums = ("texts", "confidence_difference_sum", "confidence_difference_squares")
    rows = await reader.select(
        "v1_sentiment AS v1, v2_sentiment AS v2, "
        + ", ".join(f"sum({name}) AS {name}" for name in sums)
        + "".join(f", sum(labelled_{name})::bigint AS {name}" for name in SENTIMENTS),
        facts,
        "GROUP BY v1_sentiment, v2_sentiment",
    )
    told = await anyio.to_thread.run_sync(_compare_pairs, rows)
    return PairedComparison(
        since=since or floor(max(row["first_seen"] for row in models.values()), MINUTE),
        until=until,
        models={version: model(row) for version, row in models.items()},
        table=[
            SentimentPair(v1=row["v1"], v2=row["v2"], texts=int(row["texts"]))
            for row in sorted(rows, key=lambda row: (row["v1"], row["v2"]))
            if row["texts"]
        ],
        **told,
    )


def _compare_pairs(rows: Sequence[RowMapping]) -> dict[str, Any]:
    # In a thread and only now: importing SciPy takes half a second.
    from stats.paired import ConfidenceDifferences, compare_pairs
    from stats.verdict import paired_verdict

    outcomes = paired_outcomes(rows)
    comparison = compare_pairs(
        {(row["v1"], row["v2"]): int(row["texts"]) for row in rows},
        ConfidenceDifferences(
            int(sum(row["texts"] for row in rows)),
            sum(row["confidence_difference_sum"] for row in rows),
            sum(row["confidence_difference_squares"] for row in rows),
        ),
        outcomes,
    )
    return {**asdict(comparison), **asdict(outcomes), "verdict": asdict(paired_verdict(outcomes))}


def paired_outcomes(rows: Sequence[RowMapping]) -> PairedOutcomes:
    """Of rows with what both said, as v1 and v2, and how often each label was the true one."""
    counted = dict.fromkeys([(True, True), (True, False), (False, True), (False, False)], 0)
    for row in rows:
        for label in SENTIMENTS:
            counted[row["v1"] == label, row["v2"] == label] += row[label]
    return PairedOutcomes(
        both_right=counted[True, True],
        only_v1_right=counted[True, False],
        only_v2_right=counted[False, True],
        none_right=counted[False, False],
    )
