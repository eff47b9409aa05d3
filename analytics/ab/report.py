"""Whether v2 is better than v1, by both kinds of comparison."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import NamedTuple

from analytics.ab.paired import PairedTest, paired_test
from analytics.ab.randomised import RandomisedTest, randomised_test
from analytics.buckets import MINUTE, floor
from analytics.reader import Reader


class AbTest(NamedTuple):
    """Either is None while it has nothing to compare."""

    paired: PairedTest | None
    randomised: RandomisedTest | None


async def ab_test(reader: Reader, since: datetime | None, until: datetime) -> AbTest:
    """The newest pair of models that was compared, and the newest test of the traffic split.

    Without `since`, each test counts from its beginning, so its verdict holds at every look.
    `since` is moved back and `until` on to a whole minute.
    """
    until = floor(until - timedelta(microseconds=1), MINUTE) + MINUTE
    since = None if since is None else floor(since, MINUTE)
    return AbTest(
        *await asyncio.gather(
            paired_test(reader, since, until), randomised_test(reader, since, until)
        )
    )
