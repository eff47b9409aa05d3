"""What true labels say, version by version."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from analytics.reader import Reader
from analytics.sql_fragment import Scope, labels
from core.types import Version
from stats.outcomes import LabelledBin

# By bin of confidence.
LabelsByVersion = Mapping[Version, Mapping[int, LabelledBin]]


async def labels_by_version(reader: Reader, scope: Scope) -> LabelsByVersion:
    rows = await reader.select(
        "version, confidence_bin, sum(labelled)::bigint AS labelled, "
        "sum(correct)::bigint AS correct, sum(confidence_sum) AS confidence_sum",
        labels(scope),
        "GROUP BY version, confidence_bin",
    )
    found: dict[Version, dict[int, LabelledBin]] = defaultdict(dict)
    for row in rows:
        found[row["version"]][row["confidence_bin"]] = LabelledBin(
            row["labelled"], row["confidence_sum"], row["correct"]
        )
    return found
