"""v1 and v2 over texts that both classified, by /predict/ab-compare; each text once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import anyio.to_thread
from sqlalchemy import FromClause, Label, func, select

from analytics.ab.common import IS_PAIR, PAIR, models_of, newest
from analytics.buckets import MINUTE, floor
from analytics.reader import AnyRow, Reader
from analytics.scope import Scope
from analytics.shape import AnySelect, Shape, per_shape
from analytics.subqueries import rolled_up, whole_sum
from analytics.tables import comparison_rollups
from analytics.time_range import EARLIEST, TimeRange
from core.types import SENTIMENTS, Version
from stats.outcomes import PairedOutcomes

if TYPE_CHECKING:
    from stats.paired import PairedComparison
    from stats.verdict import Verdict


class PairedTest(NamedTuple):
    """The comparison of the newest pair of models.

    `models` are rows with revision and engine, `table` rows with v1 and v2, the sentiments that
    each gave, and texts.
    """

    since: datetime
    until: datetime
    models: dict[Version, AnyRow]
    table: list[AnyRow]
    outcomes: PairedOutcomes
    comparison: PairedComparison
    verdict: Verdict


@per_shape
def _sums(shape: Shape) -> AnySelect:
    facts = rolled_up(shape, comparison_rollups, *IS_PAIR)
    key = facts.c.v1_sentiment.label("v1"), facts.c.v2_sentiment.label("v2")
    sums = "confidence_difference_sum", "confidence_difference_squares"
    return (
        select(
            *key,
            whole_sum(facts.c.texts).label("texts"),
            *(func.sum(facts.c[name]).label(name) for name in sums),
            *label_sums(facts),
        )
        .group_by(*key)
        .order_by(*key)
    )


async def paired_test(reader: Reader, since: datetime | None, until: datetime) -> PairedTest | None:
    """None if no text was compared before `until`."""
    pair = await newest(reader, comparison_rollups, until, *PAIR)
    if pair is None:
        return None
    models = await models_of(reader, pair.v1, pair.v2)
    span = TimeRange(since or EARLIEST, until)
    rows = await reader.select(_sums(Scope(span), v1=pair.v1, v2=pair.v2))
    outcomes = paired_outcomes(rows)
    comparison, verdict = await anyio.to_thread.run_sync(_compare, rows, outcomes)
    return PairedTest(
        since=since or floor(max(row.first_seen for row in models.values()), MINUTE),
        until=until,
        models=models,
        table=[row for row in rows if row.texts],
        outcomes=outcomes,
        comparison=comparison,
        verdict=verdict,
    )


def _compare(rows: Sequence[AnyRow], outcomes: PairedOutcomes) -> tuple[PairedComparison, Verdict]:
    # In a thread and only now: importing SciPy takes half a second.
    from stats.paired import ConfidenceDifferences, compare_pairs
    from stats.verdict import paired_verdict

    differences = ConfidenceDifferences(
        sum(row.texts for row in rows),
        sum(row.confidence_difference_sum for row in rows),
        sum(row.confidence_difference_squares for row in rows),
    )
    texts = {(row.v1, row.v2): row.texts for row in rows}
    return compare_pairs(texts, differences, outcomes), paired_verdict(outcomes)


def label_sums(facts: FromClause) -> list[Label[int]]:
    """How often each sentiment was the true label, as columns of its name."""
    return [whole_sum(facts.c[f"labelled_{name}"]).label(name) for name in SENTIMENTS]


def paired_outcomes(rows: Iterable[AnyRow]) -> PairedOutcomes:
    """The outcomes of rows with v1 and v2, the sentiments that each gave, and `label_sums`."""
    counted = dict.fromkeys([(True, True), (True, False), (False, True), (False, False)], 0)
    for row in rows:
        for label in SENTIMENTS:
            counted[row.v1 == label, row.v2 == label] += getattr(row, label)
    return PairedOutcomes(
        both_right=counted[True, True],
        only_v1_right=counted[True, False],
        only_v2_right=counted[False, True],
        none_right=counted[False, False],
    )
