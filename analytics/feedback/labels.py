"""How many labelled predictions are right, by version and confidence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from sqlalchemy import func, select

from analytics.reader import Reader
from analytics.scope import Scope
from analytics.shape import AnySelect, Shape, per_shape
from analytics.subqueries import labels, whole_sum
from analytics.tables import WEIGHT_SUMS
from core.types import Version
from stats.outcomes import LabelledBin

# Of fewer, the interval of the accuracy is wider than 30 points.
SAMPLED_LABELS = 30

# The inner key is a bin of confidence.
LabelsByVersion = Mapping[Version, Mapping[int, LabelledBin]]


@per_shape
def _labels(shape: Shape) -> AnySelect:
    facts = labels(shape)
    key = facts.c.version, facts.c.confidence_bin
    return select(
        *key,
        whole_sum(facts.c.labelled).label("labelled"),
        whole_sum(facts.c.correct).label("correct"),
        func.sum(facts.c.confidence_sum).label("confidence_sum"),
        whole_sum(facts.c.sampled).label("sampled"),
        *(func.sum(facts.c[name]).label(name) for name in WEIGHT_SUMS),
    ).group_by(*key)


async def labels_by_version(reader: Reader, scope: Scope) -> LabelsByVersion:
    """Of each version the labels that say how accurate it is.

    These are the ones of the review queue, which are a random sample with known probabilities, as
    soon as there are `SAMPLED_LABELS` of them; before that, the ordinary ones. The two are never
    added: nobody knows how the ordinary ones came about.
    """
    rows = await reader.select(_labels(scope))
    ordinary: dict[Version, dict[int, LabelledBin]] = defaultdict(dict)
    sampled: dict[Version, dict[int, LabelledBin]] = defaultdict(dict)
    for row in rows:
        if row.labelled:
            ordinary[row.version][row.confidence_bin] = LabelledBin(
                row.labelled, row.confidence_sum, row.correct
            )
        if row.sampled:
            sampled[row.version][row.confidence_bin] = LabelledBin(
                row.weight, row.weight_confidence, row.weight_correct,
                row.sampled, row.weight_squares,
            )  # fmt: skip
    enough = {
        version: bins
        for version, bins in sampled.items()
        if sum(part.number for part in bins.values()) >= SAMPLED_LABELS or version not in ordinary
    }
    return {**ordinary, **enough}
