"""v1 and v2 over texts that both classified, by /predict/ab-compare; each text once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import anyio.to_thread
from pydantic import Field
from sqlalchemy import FromClause, Label, bindparam, func, select

from analytics.ab.common import PAIR, Model, models_of, newest
from analytics.buckets import MINUTE, floor
from analytics.reader import AnyRow, Reader
from analytics.scope import Scope
from analytics.shape import AnySelect, Shape, per_shape
from analytics.subqueries import rolled_up, whole_sum
from analytics.tables import comparison_rollups
from analytics.time_range import EARLIEST, TimeRange
from core.types import SENTIMENTS, Sentiment, Version
from stats.outcomes import Interval, PairedOutcomes
from stats.results import Result, Verdict


class SentimentPair(Result):
    v1: Sentiment
    v2: Sentiment
    texts: int


class PairedComparison(Result):
    """/predict/ab-compare, each text once. Differences are v2 minus v1, intervals of 95 %."""

    since: datetime
    until: datetime
    models: dict[Version, Model] = Field(description="the pair that was compared last")
    pairs: int
    table: list[SentimentPair] = Field(
        description="the sentiments by v1 and v2; empty cells are absent"
    )
    agreement: float | None
    kappa: float | None = Field(description="agreement beyond chance (Cohen)")
    confidence_difference: float | None
    confidence_difference_interval: Interval | None
    labelled: int = Field(
        description="texts with feedback; of each subject the text that was labelled first"
    )
    labelled_repeats: int = Field(
        description="further texts of those subjects; their labels do not count"
    )
    both_right: int
    only_v1_right: int
    only_v2_right: int
    none_right: int
    v1_accuracy: float | None
    v2_accuracy: float | None
    accuracy_difference: float | None
    accuracy_difference_interval: Interval | None = Field(
        description="valid at one planned look (Tango)"
    )
    mcnemar_p: float | None = Field(description="exact; valid at one planned look")
    always_valid_interval: Interval | None
    always_valid_p: float | None
    verdict: Verdict


@per_shape
def _sums(shape: Shape) -> AnySelect:
    of_pair = (column == bindparam(column.name) for column in PAIR)
    facts = rolled_up(shape, comparison_rollups, *of_pair)
    key = facts.c.v1_sentiment.label("v1"), facts.c.v2_sentiment.label("v2")
    sums = "confidence_difference_sum", "confidence_difference_squares"
    return (
        select(
            *key,
            whole_sum(facts.c.texts).label("texts"),
            whole_sum(facts.c.labelled_repeats).label("labelled_repeats"),
            *(func.sum(facts.c[name]).label(name) for name in sums),
            *label_sums(facts),
        )
        .group_by(*key)
        .order_by(*key)
    )


async def paired_comparison(
    reader: Reader, since: datetime | None, until: datetime
) -> PairedComparison | None:
    """Compare the newest pair of models; None if no text was compared before `until`."""
    pair = await newest(reader, comparison_rollups, until, *PAIR)
    if pair is None:
        return None
    models = await models_of(reader, pair.v1, pair.v2)
    span = TimeRange(since or EARLIEST, until)
    rows = await reader.select(_sums(Scope(span), v1=pair.v1, v2=pair.v2))
    return PairedComparison(
        since=since or floor(max(row.first_seen for row in models.values()), MINUTE),
        until=until,
        models=models,
        table=[row for row in rows if row.texts],
        labelled_repeats=sum(row.labelled_repeats for row in rows),
        **await anyio.to_thread.run_sync(_compare, rows),
    )


def _compare(rows: Sequence[AnyRow]) -> dict[str, Any]:
    # In a thread and only now: importing SciPy takes half a second.
    from stats.paired import ConfidenceDifferences, compare_pairs
    from stats.verdict import paired_verdict

    differences = ConfidenceDifferences(
        sum(row.texts for row in rows),
        sum(row.confidence_difference_sum for row in rows),
        sum(row.confidence_difference_squares for row in rows),
    )
    texts = {(row.v1, row.v2): row.texts for row in rows}
    outcomes = paired_outcomes(rows)
    statistics = compare_pairs(texts, differences, outcomes)
    return asdict(outcomes) | statistics | {"verdict": paired_verdict(outcomes)}


def label_sums(facts: FromClause) -> list[Label[int]]:
    """How often each sentiment was the true label, as columns of its name."""
    return [whole_sum(facts.c[f"labelled_{name}"]).label(name) for name in SENTIMENTS]


def paired_outcomes(rows: Iterable[AnyRow]) -> PairedOutcomes:
    """The outcomes of rows with v1 and v2, the sentiments that each gave, and `label_sums`."""
    counted = Counter[tuple[bool, bool]]()
    for row in rows:
        for label in SENTIMENTS:
            counted[row.v1 == label, row.v2 == label] += getattr(row, label)
    return PairedOutcomes(
        both_right=counted[True, True],
        only_v1_right=counted[True, False],
        only_v2_right=counted[False, True],
        none_right=counted[False, False],
    )
