"""The prediction cache in Redis: one MGET to look a batch up, one pipeline to store it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import orjson
from redis.asyncio import Redis

import metrics
from cache.keys import PREFIX
from redis_connection import REDIS_FAILURES, OutageLog
from values import Classification

logger = logging.getLogger("bentoml.sentiment.cache")

# Up to so many keys are counted exactly; past that the size of the whole database is told, which
# then differs only by the few keys of the rate limits.
COUNTED_KEYS = 10_000


class PredictionCache:
    """Looks up and stores classifications. A Redis outage costs hits, never requests."""

    def __init__(self, redis: Redis, *, ttl_seconds: int) -> None:
        self._redis = redis
        self._ttl_seconds = ttl_seconds
        self._outage = OutageLog("prediction cache")

    async def lookup(self, keys: Sequence[str]) -> list[Classification | None]:
        """The cached classification of each key, `None` where there is none; one round trip."""
        try:
            values = await self._redis.mget(keys)
        except REDIS_FAILURES as error:
            self._outage.failed("lookup", error)
            values = [None] * len(keys)
        else:
            self._outage.succeeded()
        found = [_decode(value) for value in values]
        hits = sum(classification is not None for classification in found)
        metrics.cache_hits.inc(hits)
        metrics.cache_misses.inc(len(keys) - hits)
        return found

    async def store(self, classifications: Mapping[str, Classification]) -> None:
        """Store every classification under its key; one round trip."""
        pipeline = self._redis.pipeline(transaction=False)
        for key, classification in classifications.items():
            pipeline.set(key, orjson.dumps(classification), ex=self._ttl_seconds)
        try:
            await pipeline.execute()
        except REDIS_FAILURES as error:
            self._outage.failed("store", error)
        else:
            self._outage.succeeded()

    async def size(self) -> int | None:
        """How many classifications are cached; `None` while Redis is down."""
        try:
            keys = await self._redis.dbsize()
            if keys > COUNTED_KEYS:
                return int(keys)
            return len({key async for key in self._redis.scan_iter(f"{PREFIX}*", count=1_000)})
        except REDIS_FAILURES as error:
            self._outage.failed("size", error)
            return None

    async def connected(self) -> bool:
        try:
            await self._redis.ping()
        except REDIS_FAILURES as error:
            self._outage.failed("ping", error)
            return False
        return True


def _decode(value: bytes | str | None) -> Classification | None:
    if value is None:
        return None
    try:
        classification = Classification(**orjson.loads(value))
        # Raises here and not in the answer if the scores are none.
        float(classification.confidence)
    except (ValueError, TypeError, AttributeError) as error:
        # Somebody else wrote under our key. Computing the answer again also replaces it.
        logger.warning("a cached value cannot be read and counts as a miss: %r", error)
        return None
    return classification
