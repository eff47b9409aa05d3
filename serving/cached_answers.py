"""Deletes the cached answers to texts that are erased."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from redis.asyncio import Redis

from analytics.privacy.selection import Selection, Selector
from cache.keys import PREFIX, digests_of, hash_of
from core.command_output import note
from core.errors import describe_error
from core.redis import REDIS_FAILURES, connect
from core.settings import Settings

REDIS_SECONDS = 5.0
KEYS_AT_A_TIME = 1_000


async def forget_cached(settings: Settings, selector: Selector, found: Selection) -> int | None:
    """Delete the cached answers of the texts; None if Redis is away.

    It looks at all keys: a model that has answered nothing but trials is in no table. Where a text
    may be cached by a hash that the log does not have, all answers are deleted.
    """
    hashes = set(found.text_hashes)
    if selector.kind == "text":
        hashes.update(digests_of(selector.value))
    oldest = datetime.now(UTC) - timedelta(seconds=settings.cache_ttl_seconds)
    all_ = found.last_without_cached_hash is not None and found.last_without_cached_hash > oldest
    if not hashes and not all_:
        return 0
    if settings.redis_url is None:
        return None
    redis = connect(settings.redis_connection_url(), timeout_seconds=REDIS_SECONDS)
    try:
        deleted = await _delete(redis, None if all_ else {hash_.hex() for hash_ in hashes})
    except REDIS_FAILURES as error:
        note(f"Redis does not answer: {describe_error(error)}")
        return None
    finally:
        await redis.aclose()
    if all_:
        note("The log does not have the hash of a text by which the cache knows it: all is deleted")
    return deleted


async def _delete(redis: Redis, hashes: set[str] | None) -> int:
    """Delete the answers to texts with these hashes; None: all answers."""
    deleted, cursor = 0, 0
    while True:
        cursor, keys = await redis.scan(cursor, match=f"{PREFIX}*", count=KEYS_AT_A_TIME)
        # Another program may have written keys that are no UTF-8.
        if named := [key for key in keys if hashes is None or hash_of(_text(key)) in hashes]:
            deleted += int(await redis.delete(*named))
        if cursor == 0:
            return deleted


def _text(key: bytes | str) -> str:
    return key.decode(errors="replace") if isinstance(key, bytes) else key
