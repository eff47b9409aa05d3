"""The prediction cache in Redis: one MGET to look texts up, one pipeline to store them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

import msgspec
import orjson
from cachetools import TTLCache
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from cache.keys import PREFIX, revision_of
from cache.write_behind import WriteBehind
from core import metrics
from core.coalescing import CallDropped, Coalescer
from core.redis import MAX_WAIT_SECONDS, REDIS_FAILURES, ROUND_TRIPS, WRONG_SERVER, RedisCircuit
from core.types import ENGINE_NAMES, Classification, Sentiment
from core.unreadable import UNREADABLE

logger = logging.getLogger("bentoml.sentiment.cache")

# Long enough to spare Redis a burst of one text; short, so that flushing Redis soon flushes all.
LOCAL_SECONDS = 60.0
# Answers that wait for a slow Redis: some 20 MB. It costs hits to drop the newest past that.
MAX_WAITING_WRITES = 50_000
FLUSH_SECONDS = 2.0
# Up to so many keys are counted exactly. Beyond that, the size is that of the whole database, which
# differs only by the few keys of the rate limits.
MAX_COUNTED_KEYS = 10_000
# An answer is some 150 bytes.
MAX_VALUE_BYTES = 4_096
# An attack on Redis must not fill the log too; the metric counts each value.
LOG_SECONDS = 60.0


class PredictionCache:
    """Looks up and stores classifications. A Redis outage costs hits, never requests."""

    def __init__(
        self,
        redis: Redis,
        *,
        ttl_seconds: int,
        local_entries: int = 0,
        circuit: RedisCircuit | None = None,
    ) -> None:
        """Cache the last `local_entries` answers in this process too, for a minute.

        The other users of the same Redis share `circuit`.
        """
        self._redis = redis
        self._local: TTLCache[str, Classification] = TTLCache(
            local_entries, min(ttl_seconds, LOCAL_SECONDS)
        )
        self._ttl_seconds = ttl_seconds
        self._lookups = Coalescer[str, bytes | str | None](
            self._mget, ROUND_TRIPS, timeout_seconds=MAX_WAIT_SECONDS
        )
        # None deletes a key.
        self._writes = WriteBehind[tuple[str, Classification | None]](
            self._write, max_items=MAX_WAITING_WRITES, batch_items=ROUND_TRIPS.call_items
        )
        self._circuit = circuit or RedisCircuit()
        self._logged_at = -math.inf

    async def lookup(
        self, keys: Sequence[str], sentiments: Collection[Sentiment] | None = None
    ) -> list[Classification | None]:
        """Look up the cached classification of each key; `None` for a miss.

        `sentiments` are those of the model; an answer with others is a miss. It takes one round
        trip to Redis, or none if the local cache has all of them.
        """
        found = [self._local.get(key) for key in keys]
        absent = [index for index, local in enumerate(found) if local is None]
        if absent:
            requested = [keys[index] for index in absent]
            values = await self._fetch(requested)
            for index, key, value in zip(absent, requested, values, strict=True):
                # Another request may have stored it meanwhile; Redis gets it a moment later.
                classification = found[index] = self._decode(
                    key, value, sentiments
                ) or self._local.get(key)
                if classification is not None:
                    self._remember(key, classification)
        hits = sum(classification is not None for classification in found)
        metrics.cache_hits.inc(hits)
        metrics.cache_misses.inc(len(keys) - hits)
        return found

    async def _fetch(self, keys: Sequence[str]) -> list[bytes | str | None]:
        try:
            return await self._lookups.get(keys)
        except (*REDIS_FAILURES, CallDropped):
            return [None] * len(keys)

    async def _mget(self, keys: list[str], _timeout_seconds: float) -> list[bytes | str | None]:
        with self._circuit.calling("lookup"):
            values: list[bytes | str | None] = await self._redis.mget(keys)
            if not isinstance(values, list) or len(values) != len(keys):
                raise ValueError("its answer to MGET has not a value for each key")
            if not all(isinstance(value, bytes | str | None) for value in values):
                raise ValueError("its answer to MGET has values that are no strings")
        return values

    def _remember(self, key: str, classification: Classification) -> None:
        if self._local.maxsize:
            self._local[key] = classification

    def store(self, classifications: Mapping[str, Classification]) -> None:
        """Store every classification under its key.

        This process knows them at once. Redis gets them in the background: no reply waits for it.
        """
        for key, classification in classifications.items():
            self._remember(key, classification)
        dropped = self._writes.add(classifications.items())
        if dropped:
            metrics.cache_writes_dropped.inc(dropped)

    async def _write(self, items: list[tuple[str, Classification | None]]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for key, classification in items:
            if classification is None:
                pipeline.delete(key)
            else:
                pipeline.set(key, orjson.dumps(classification), ex=self._ttl_seconds)
        with suppress(*REDIS_FAILURES), self._circuit.calling("store"):
            await pipeline.execute()

    async def stop(self) -> None:
        """Write what still waits for Redis, for `FLUSH_SECONDS` at most."""
        await self._writes.stop(FLUSH_SECONDS)

    async def size(self) -> int | None:
        """The number of cached classifications; `None` while Redis is down."""
        try:
            with self._circuit.calling("size"):
                keys = await self._redis.dbsize()
                if keys > MAX_COUNTED_KEYS:
                    return int(keys)
                return len({key async for key in self._redis.scan_iter(f"{PREFIX}*", count=1_000)})
        except REDIS_FAILURES:
            return None

    async def connected(self) -> bool:
        """Whether Redis answers."""
        try:
            with self._circuit.calling("ping"):
                await self._redis.ping()
        except ResponseError as error:
            # It answers, and may refuse nothing but this command.
            return not isinstance(error, WRONG_SERVER)
        except REDIS_FAILURES:
            return False
        return True

    def _decode(
        self, key: str, value: bytes | str | None, sentiments: Collection[Sentiment] | None
    ) -> Classification | None:
        if value is None:
            return None
        try:
            return decode(key, value, sentiments)
        except ValueError as error:
            # Another program wrote this key.
            metrics.cache_invalid_values.inc()
            self._writes.add([(key, None)])
            if time.monotonic() - self._logged_at > LOG_SECONDS:
                self._logged_at = time.monotonic()
                logger.warning("a value in Redis is no cached answer and is deleted: %s", error)
        return None


def decode(
    key: str, value: bytes | str, sentiments: Collection[Sentiment] | None = None
) -> Classification:
    """Decode and check the value of a key.

    Raises:
        ValueError: it is no classification, or not one that belongs to the key.
    """
    if len(value) > MAX_VALUE_BYTES:
        raise ValueError(f"it has {len(value):,} bytes")
    try:
        classification = msgspec.json.decode(value, type=Classification)
    except UNREADABLE as error:
        # msgspec quotes an unknown word.
        raise ValueError(f"{type(error).__name__}: {str(error)[:200]}") from error
    if classification.revision != revision_of(key):
        raise ValueError("it is of other weights than its key")
    if sentiments is not None and classification.scores.keys() != set(sentiments):
        raise ValueError("its sentiments are not those of the model")
    if classification.engine not in ENGINE_NAMES:
        # The log keeps each name for ever.
        raise ValueError("its engine is none of this release")
    if not classification.windows:
        raise ValueError("no window of its text was computed")
    if not classification.is_distribution:
        raise ValueError("its scores do not add up to 1")
    return classification
