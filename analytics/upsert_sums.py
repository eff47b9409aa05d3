"""Adds to rollups that hold nothing but counts and sums."""

from __future__ import annotations

from sqlalchemy import Table, TextClause, text

from analytics.tables import BUCKET_SECONDS

_SIZES = ", ".join(f"({seconds})" for seconds in BUCKET_SECONDS)


def upsert_sums(table: Table, source: str, *, preceded_by: str = "") -> TextClause:
    """Add every row of `source`, SQL after FROM, to the buckets of each size that it lies in.

    `source` has a column for each of the table's but the bucket's, and `at`, the moment;
    `preceded_by` is a WITH that it selects from. The caller holds the writers' lock.
    """
    bucket = ("bucket_seconds", "bucket")
    keys = [column.name for column in table.primary_key if column.name not in bucket]
    sums = [column.name for column in table.columns if column.name not in (*bucket, *keys)]
    return text(
        f"{preceded_by} INSERT INTO {table.name} AS known ({', '.join([*bucket, *keys, *sums])}) "
        "SELECT seconds, date_bin(make_interval(secs => seconds), at, TIMESTAMPTZ 'epoch'), "
        f"{', '.join(keys)}, {', '.join(f'sum({name})' for name in sums)} "
        f"FROM {source} CROSS JOIN (VALUES {_SIZES}) AS sizes (seconds) "
        f"GROUP BY {', '.join(str(number + 1) for number in range(len(bucket) + len(keys)))} "
        f"ON CONFLICT ON CONSTRAINT pk_{table.name} DO UPDATE SET "
        + ", ".join(f"{name} = known.{name} + excluded.{name}" for name in sums)
    )
