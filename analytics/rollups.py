"""The locks under which rollups and partitions change; what rollups and rows compute alike."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import text

from core.types import SENTIMENTS
from stats.entropy import entropy_sql
from stats.histogram import CONFIDENCE, LATENCY_MS, TEXT_CHARACTERS, TOKEN_COUNT, Bins

# One transaction at a time updates the rollups: two that update the same rows in different orders
# would deadlock. The number is the ASCII of "rollups_"; no other program on the database uses it.
# All others wait for who has the lock, so it goes with a transaction in which nothing is done.
WRITERS_LOCK = text(
    "SELECT set_config('idle_in_transaction_session_timeout', '60s', true), "
    "pg_advisory_xact_lock(x'726F6C6C7570735F'::bigint)"
)
# To drop a day is to lock all of `predictions`, `comparisons` and `feedback`. A transaction that
# reads them and then waits for the writers' lock would keep whoever drops from that, and be kept
# by it: it takes the first of these locks before both, and whoever drops the second.
KEEP_PARTITIONS = text("SELECT pg_advisory_xact_lock_shared(x'706172746974696F'::bigint)")
DROP_PARTITIONS = text("SELECT pg_advisory_xact_lock(x'706172746974696F'::bigint)")

MeasureName = Literal["latency_ms", "confidence", "text_characters", "token_count"]
BINS: dict[MeasureName, Bins] = {
    "latency_ms": LATENCY_MS,
    "confidence": CONFIDENCE,
    "text_characters": TEXT_CHARACTERS,
    "token_count": TOKEN_COUNT,
}

ENTROPY = entropy_sql([f"score_{sentiment}" for sentiment in SENTIMENTS])
