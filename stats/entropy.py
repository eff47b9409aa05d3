"""The entropy of a prediction, as SQL."""

from __future__ import annotations

import math
from collections.abc import Sequence


def entropy_sql(columns: Sequence[str]) -> str:
    """The entropy (Shannon 1948) in bits of a row's scores, as a PostgreSQL expression.

    Its type is double precision, its range 0 to log2(classes): at most 1 for two, 1.585 for three.

    `columns` are names of score columns; NULL stands for a class that the checkpoint does not have.
    A score of 0 adds 0; `greatest` avoids ln(0), which PostgreSQL refuses.
    """
    scores = [f"coalesce({column}, 0)::double precision" for column in columns]
    terms = " + ".join(f"{score} * ln(greatest({score}, 1e-300))" for score in scores)
    return f"abs({terms}) / {math.log(2)!r}"
