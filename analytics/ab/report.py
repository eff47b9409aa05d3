"""Whether v2 is better than v1, by both kinds of comparison."""

from __future__ import annotations

import asyncio
from datetime import datetime

from pydantic import Field

from analytics.ab.paired import PairedComparison, paired_comparison
from analytics.ab.randomised import RandomisedComparison, randomised_comparison
from analytics.buckets import MINUTE, ceiling, floor
from analytics.reader import Reader
from stats.results import Result


class AbTest(Result):
    paired: PairedComparison | None = Field(description="null if nothing was compared")
    randomised: RandomisedComparison | None = Field(
        description="null if no subject was assigned a version"
    )


async def ab_test(reader: Reader, since: datetime | None, until: datetime) -> AbTest:
    """The newest pair of models that was compared, and the newest test of the traffic split.

    Without `since`, each test counts from its beginning, so its verdict holds at every look.
    `since` is moved back and `until` on to a whole minute.
    """
    until = ceiling(until, MINUTE) or until
    since = None if since is None else floor(since, MINUTE)
    paired, randomised = await asyncio.gather(
        paired_comparison(reader, since, until), randomised_comparison(reader, since, until)
    )
    return AbTest(paired=paired, randomised=randomised)
