"""How often both versions agree on texts of shadow traffic, which the service draws itself.

A client that compares texts of its choice by /predict/ab-compare may choose those on which the
versions differ: such comparisons are evidence of an A/B test, but not of a rollout's guardrail.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import bindparam, func, literal_column, or_, select
from sqlalchemy.dialects.postgresql import distinct_on

from analytics.reader import Reader
from analytics.shape import Query
from analytics.tables import comparisons, model_versions, predictions
from analytics.time_range import TimeRange
from core.types import VERSIONS, Version
from core.uuid7 import id_range

# The newest comparisons that are looked at, those of clients among them.
MAX_COMPARISONS = 20_000
# A shadow follows its prediction within seconds. That of a repeated request may have the id of its
# first try, and does not count if that is older.
_EARLIER = timedelta(hours=1)


async def shadow_agreement(
    reader: Reader, span: TimeRange, revisions: Mapping[Version, str]
) -> tuple[int, int]:
    """The texts of shadow traffic that these revisions classified, each once; those they agree on.

    They are those among the newest `MAX_COMPARISONS`.

    Raises:
        DatabaseUnavailable: PostgreSQL cannot answer.
    """
    low, high = id_range(span.since, span.until)
    earliest, _ = id_range(span.since - _EARLIER, span.until)
    bounds = {
        "low": low, "high": high, "earliest": earliest, "since": span.since, "until": span.until,
    }  # fmt: skip
    of = {f"{version}_revision": revisions[version] for version in VERSIONS}
    [row] = await reader.select(Query(_STATEMENT, bounds | of))
    return int(row.texts), int(row.agreed)


_recent = (
    select(comparisons.c.id, comparisons.c.v1_prediction_id, comparisons.c.v2_prediction_id)
    .where(
        comparisons.c.id >= bindparam("low"),
        comparisons.c.id < bindparam("high"),
        comparisons.c.created_at >= bindparam("since"),
        comparisons.c.created_at < bindparam("until"),
    )
    .order_by(comparisons.c.id.desc())
    .limit(MAX_COMPARISONS)
    .subquery("recent")
)
_v1, _v2 = (predictions.alias(version) for version in VERSIONS)
_v1_model, _v2_model = (model_versions.alias(f"{version}_model") for version in VERSIONS)
# Without a hash of the text, every comparison counts as one of a new text.
_text = func.coalesce(_v1.c.text_sha256, func.uuid_send(_recent.c.id))
_texts = (
    select((_v1.c.sentiment == _v2.c.sentiment).label("agrees"))
    .ext(distinct_on(_text))
    .select_from(_recent)
    .join(_v1, _v1.c.id == _recent.c.v1_prediction_id)
    .join(_v2, _v2.c.id == _recent.c.v2_prediction_id)
    .join(_v1_model, _v1_model.c.id == _v1.c.model_version_id)
    .join(_v2_model, _v2_model.c.id == _v2.c.model_version_id)
    .where(
        *(one.c.id >= bindparam("earliest") for one in (_v1, _v2)),
        *(one.c.id < bindparam("high") for one in (_v1, _v2)),
        or_(*(one.c.endpoint == literal_column("'shadow'") for one in (_v1, _v2))),
        _v1_model.c.revision == bindparam("v1_revision"),
        _v2_model.c.revision == bindparam("v2_revision"),
    )
    .order_by(_text, _recent.c.id)
    .subquery("texts")
)
_STATEMENT = select(
    func.count().label("texts"), func.count().filter(_texts.c.agrees).label("agreed")
).select_from(_texts)
