"""Whether v2 is better than v1, by both kinds of comparison."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from pydantic import BaseModel, Field

from analytics.ab.paired import PairedComparison, compare_pairs_of
from analytics.ab.randomised import RoutedComparison, compare_arms_of
from analytics.buckets import MINUTE, floor
from analytics.reader import Reader


class AbTest(BaseModel):
    paired: PairedComparison | None = Field(description="null if nothing was compared")
    routed: RoutedComparison | None = Field(description="null if nobody was dealt a version")


async def ab_test(reader: Reader, since: datetime | None, until: datetime) -> AbTest:
    """The newest pair of models that was compared, and the newest test of the traffic split.

    Without `since` each from its beginning, which is what makes verdicts hold at every look. Both
    ends are moved to the minute: `since` back, `until` on.
    """
    until = floor(until - timedelta(microseconds=1), MINUTE) + MINUTE
    since = None if since is None else floor(since, MINUTE)
    paired, routed = await asyncio.gather(
        compare_pairs_of(reader, since, until), compare_arms_of(reader, since, until)
    )
    return AbTest(paired=paired, routed=routed)
