"""How many labelled predictions are right, by version and confidence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from sqlalchemy import func, select

from analytics.reader import Reader
from analytics.scope import Scope
from analytics.shape import AnySelect, Shape, per_shape
from analytics.subqueries import labels, whole_sum
from core.types import Version
from stats.outcomes import LabelledBin

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
    ).group_by(*key)


async def labels_by_version(reader: Reader, scope: Scope) -> LabelsByVersion:
    rows = await reader.select(_labels(scope))
    found: dict[Version, dict[int, LabelledBin]] = defaultdict(dict)
    for row in rows:
        found[row.version][row.confidence_bin] = LabelledBin(
            row.labelled, row.confidence_sum, row.correct
        )
    return found
