"""The lock under which rollups change, and the expressions that rollups and rows share."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import text

from core.types import SENTIMENTS
from stats.entropy import entropy_sql
from stats.histogram import CONFIDENCE, LATENCY_MS, TEXT_CHARACTERS, TOKEN_COUNT, Bins

# One transaction at a time updates the rollups: two that update the same rows in different orders
# would deadlock. The number is the ASCII of "rollups_"; no other program on the database uses it.
WRITERS_LOCK = text("SELECT pg_advisory_xact_lock(x'726F6C6C7570735F'::bigint)")

MeasureName = Literal["latency_ms", "confidence", "text_characters", "token_count"]
BINS: dict[MeasureName, Bins] = {
    "latency_ms": LATENCY_MS,
    "confidence": CONFIDENCE,
    "text_characters": TEXT_CHARACTERS,
    "token_count": TOKEN_COUNT,
}

ENTROPY = entropy_sql([f"score_{sentiment}" for sentiment in SENTIMENTS])
