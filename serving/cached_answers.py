"""Deletes the cached answers to texts that are erased."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.privacy.selection import Selection, Selector, served_models
from cache.keys import keys_of
from core.command_output import note
from core.errors import describe_error
from core.redis import REDIS_FAILURES, connect
from core.settings import Settings

REDIS_SECONDS = 5.0
KEYS_AT_A_TIME = 1_000


async def forget_cached(
    engine: AsyncEngine, settings: Settings, selector: Selector, found: Selection
) -> int | None:
    """Delete the cached answers of the texts; None if Redis is away."""
    async with engine.connect() as connection:
        models = await served_models(connection)
    text = selector.value if selector.kind == "text" else None
    keys = keys_of(models, found.text_hashes, text)
    if not keys:
        return 0
    if settings.redis_url is None:
        return None
    redis = connect(settings.redis_connection_url(), timeout_seconds=REDIS_SECONDS)
    try:
        deleted = 0
        for start in range(0, len(keys), KEYS_AT_A_TIME):
            deleted += int(await redis.delete(*keys[start : start + KEYS_AT_A_TIME]))
    except REDIS_FAILURES as error:
        note(f"Redis does not answer: {describe_error(error)}")
        return None
    finally:
        await redis.aclose()
    return deleted
