"""Draws predictions for the review queue, each with a known probability (docs/statistics.md)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics import sql
from analytics.reader import Reader
from analytics.review.blocks import BLOCK_ITEMS, count_full_blocks
from analytics.rollups import WRITERS_LOCK
from analytics.scope import Scope
from analytics.shape import AnySelect, Shape, per_shape
from analytics.subqueries import histograms
from analytics.tables import review_draws
from analytics.time_range import EARLIEST, TimeRange
from core.postgres import reading
from core.types import Version
from core.uuid7 import id_range
from stats.histogram import TOKEN_COUNT, Counts

DRAW_SIZE = 100
# An item waits for its label so long: what nobody wanted to label is not asked for ever.
WAITS = timedelta(days=7)
# After a draw from a large pool, so that labels are not spent on the predictions of a few seconds.
SPACING = timedelta(minutes=5)
POOL_ROWS = 20_000
# The shipper has stored a prediction of this age, unless PostgreSQL was away.
SETTLED = timedelta(seconds=5)
# Both versions of a comparison answer within the time-out of a request.
_COMPARED_WITHIN = timedelta(minutes=10)
NARROW_MARGIN = 0.2
# "Unusual" is a length that is so many times as frequent as in the time before.
UNUSUAL_RATIO = 2.0
_BEFORE = timedelta(days=7)
_FEWEST_BEFORE, _FEWEST_NOW = 500, 5
# `predictions.token_count` is a SMALLINT.
_MAX_TOKENS = 32_767

_LAST = (
    select(review_draws.c.drawn_at, review_draws.c.until, review_draws.c.pool)
    .where(review_draws.c.version == bindparam("version"))
    .order_by(review_draws.c.until.desc())
    .limit(1)
)
_DRAW = sql.load("draw_review")
# The plan of a pool of unknown size would read all comparisons of the log.
_NO_HASH_JOIN = text("SET LOCAL enable_hashjoin = off")
_NO_MERGE_JOIN = text("SET LOCAL enable_mergejoin = off")


class ReviewDraws:
    """Draws samples of predictions; a prediction has one chance, however often is drawn."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        size: int = DRAW_SIZE,
        spacing: timedelta = SPACING,
        waits: timedelta = WAITS,
    ) -> None:
        """`size` is the mean size of a draw; `spacing` lies between two draws of a version.

        What has no label `waits` after its draw is not asked for any more.
        """
        self.waits = waits
        self._engine = engine
        self._reader = Reader(engine)
        self._size = size
        self._spacing = spacing

    @property
    def size(self) -> int:
        return self._size

    async def draw(self, version: Version, span: TimeRange, now: datetime) -> int:
        """Draw from what no draw has seen until the end of `span`; returns how many are drawn.

        However short `span` is: what lies before a draw has had its chance.

        Raises:
            DatabaseUnavailable: PostgreSQL is away.
        """
        until = min(span.until, now - SETTLED)
        async with reading(self._engine) as connection:
            last = (await connection.execute(_LAST, {"version": version})).one_or_none()
        begin = min(span.since, _earlier(now, self.waits))
        since = begin if last is None else max(begin, last.until)
        # A smaller pool was drawn whole, so nothing is wasted by drawing again at once.
        waits = last is not None and last.pool >= self._size
        if since >= until or (last and waits and now - last.drawn_at < self._spacing):
            return 0
        unusual = await self._unusual(Scope(TimeRange(since, until), version))
        async with reading(self._engine, "insert") as connection, connection.begin():
            # Also the lock of draws: the second of two at a time finds that nothing is left.
            await connection.execute(WRITERS_LOCK)
            last = (await connection.execute(_LAST, {"version": version})).one_or_none()
            since = since if last is None else max(since, last.until)
            if since >= until:
                return 0
            low, high = id_range(since, until)
            other_low, other_high = id_range(_earlier(since, _COMPARED_WITHIN), now)
            for setting in (_NO_HASH_JOIN, _NO_MERGE_JOIN):
                await connection.execute(setting)
            row = (
                await connection.execute(
                    _DRAW,
                    {
                        "version": version,
                        "since": since,
                        "until": until,
                        "low": low,
                        "high": high,
                        "other_low": other_low,
                        "other_high": other_high,
                        "rows": POOL_ROWS,
                        "size": self._size,
                        "narrow_margin": NARROW_MARGIN,
                        "unusual_token_counts": unusual,
                        "drawn_at": now,
                        "block_items": BLOCK_ITEMS,
                    },
                )
            ).one_or_none()
            if row is None or not row.items:
                return 0
            # Some had labels before.
            await count_full_blocks(connection, row.items)
        return len(row.items)

    async def _unusual(self, scope: Scope) -> list[int]:
        """The lengths in tokens that are more frequent than in the time before the scope."""
        before = TimeRange(_earlier(scope.span.since, _BEFORE), scope.span.since)
        if before.since >= before.until:
            return []
        now = await self._reader.histograms(_token_counts(scope))
        then = await self._reader.histograms(_token_counts(replace(scope, span=before)))
        return unusual_token_counts(now.get((scope.version,), {}), then.get((scope.version,), {}))


@per_shape
def _token_counts(shape: Shape) -> AnySelect:
    return histograms(shape, "token_count")


def unusual_token_counts(now: Counts, before: Counts) -> list[int]:
    """The token counts whose bins grew most; none if either window is small."""
    total_now, total_before = sum(now.values()), sum(before.values())
    if total_before < _FEWEST_BEFORE:
        return []
    bins = {
        number
        for number, count in now.items()
        if count >= _FEWEST_NOW
        # A bin that was empty counts as one of a single prediction.
        and count / total_now > UNUSUAL_RATIO * max(before.get(number, 0), 1) / total_before
    }
    return _values_of(bins)


def _values_of(bins: Iterable[int]) -> list[int]:
    wanted = set(bins)
    if not wanted:
        return []
    return [tokens for tokens in range(1, _MAX_TOKENS + 1) if TOKEN_COUNT.bin_of(tokens) in wanted]


def _earlier(at: datetime, by: timedelta) -> datetime:
    return at - by if at - EARLIEST > by else EARLIEST
