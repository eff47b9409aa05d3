"""Rollups without the endpoint: half as many, and a third of the bins to add up."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ENDPOINTS = "IN ('/predict', '/predict/batch', '/predict/ab', '/predict/ab-compare')"
MEASURES = ("latency_ms", "confidence", "text_characters", "token_count")
SUMS = ("negative", "neutral", "positive", "truncated")
FLOAT_SUMS = ("confidence_sum", "latency_ms_sum", "entropy_sum")
ROUTED = "endpoint = '/predict/ab'"
BUCKET = "bucket_seconds, bucket, model_version_id"
KEYS = f"{BUCKET}, routed, cache_hit"
SUMMED = ", ".join(
    [*(f"sum({name})::bigint AS {name}" for name in SUMS),
     *(f"sum({name}) AS {name}" for name in FLOAT_SUMS)]
)  # fmt: skip
BINS = " UNION ALL ".join(
    f"SELECT {BUCKET}, {ROUTED} AS routed, cache_hit, {number} AS measure, "
    f"unnest({measure}_bins) AS bin, unnest({measure}_counts) AS predictions FROM rollups"
    for number, measure in enumerate(MEASURES)
)
ARRAYS = [f"{measure}_{part}" for measure in MEASURES for part in ("bins", "counts")]
HISTOGRAMS = ", ".join(
    f"array_agg({column} ORDER BY bin) FILTER (WHERE measure = {number}) AS {measure}_{part}"
    for number, measure in enumerate(MEASURES)
    for part, column in (("bins", "bin"), ("counts", "predictions"))
)
MERGE_ROLLUPS = f"""
CREATE TEMP TABLE merged_rollups ON COMMIT DROP AS
SELECT * FROM (
    SELECT {BUCKET}, {ROUTED} AS routed, cache_hit, {SUMMED} FROM rollups GROUP BY 1, 2, 3, 4, 5
) AS summed JOIN (
    SELECT {KEYS}, {HISTOGRAMS} FROM (
        SELECT {KEYS}, measure, bin, sum(predictions)::bigint AS predictions
        FROM ({BINS}) AS binned GROUP BY {KEYS}, measure, bin
    ) AS added GROUP BY {KEYS}
) AS histograms USING ({KEYS})
"""
COLUMNS = ", ".join([KEYS, *SUMS, *FLOAT_SUMS, *ARRAYS])
LABELS_SUMMED = (
    "sum(labelled)::bigint AS labelled, sum(correct)::bigint AS correct, "
    "sum(confidence_sum) AS confidence_sum"
)
# The others that had it: what they sum, and their keys beside the bucket.
OTHERS = {
    "label_rollups": (
        ("confidence_bin",),
        LABELS_SUMMED,
        "labelled, correct, confidence_sum",
    ),
    "failure_rollups": ((), "sum(texts)::bigint AS texts", "texts"),
}

# What the downgrade counts, as the migrations that it undoes do.
BUCKETED = """
SELECT seconds AS bucket_seconds,
    date_bin(make_interval(secs => seconds), created_at, TIMESTAMPTZ 'epoch') AS bucket, rows.*
FROM {rows} AS rows CROSS JOIN (VALUES (60), (3600), (86400)) AS sizes (seconds)
"""
BY_ENDPOINT = f"{BUCKET}, endpoint, cache_hit"
CONFIDENCE_BIN = "least(floor(greatest(confidence::double precision, 0) * 50), 49)::smallint"
ENTROPY = " + ".join(
    f"coalesce({score}, 0)::double precision "
    f"* ln(greatest(coalesce({score}, 0)::double precision, 1e-300::double precision))"
    for score in ("score_negative", "score_neutral", "score_positive")
)
LENGTH = "ln(least(greatest({}::double precision, 1.0), 1000000.0))"
LENGTH_BIN = f"ceil({LENGTH} / 0.20067069546215116)::smallint"
COUNT_PREDICTIONS = f"""
WITH bucketed AS ({BUCKETED.format(rows="predictions")}), counted AS (
    SELECT {BY_ENDPOINT},
        count(*) FILTER (WHERE sentiment = 'negative') AS negative,
        count(*) FILTER (WHERE sentiment = 'neutral') AS neutral,
        count(*) FILTER (WHERE sentiment = 'positive') AS positive,
        count(*) FILTER (WHERE truncated) AS truncated,
        sum(confidence::double precision) AS confidence_sum,
        sum(latency_ms::double precision) AS latency_ms_sum,
        sum(abs({ENTROPY}) / ln(2::double precision)) AS entropy_sum
    FROM bucketed GROUP BY {BY_ENDPOINT}
), binned AS (
    SELECT {BY_ENDPOINT}, measure, bin, count(*) AS predictions
    FROM bucketed CROSS JOIN LATERAL (VALUES
        (0, ceil(ln(least(greatest(latency_ms::double precision, 0.01), 3600000.0))
            / 0.020000666706669525)::smallint),
        (1, {CONFIDENCE_BIN}),
        (2, {LENGTH_BIN.format("text_characters")}),
        (3, {LENGTH_BIN.format("token_count")})
    ) AS measured (measure, bin)
    GROUP BY {BY_ENDPOINT}, measure, bin
), histograms AS (SELECT {BY_ENDPOINT}, {HISTOGRAMS} FROM binned GROUP BY {BY_ENDPOINT})
INSERT INTO rollups ({BY_ENDPOINT}, {", ".join([*SUMS, *FLOAT_SUMS, *ARRAYS])})
SELECT {BY_ENDPOINT}, {", ".join([*SUMS, *FLOAT_SUMS, *ARRAYS])}
FROM counted JOIN histograms USING ({BY_ENDPOINT})
"""
LATEST_LABELS = """(
    SELECT predictions.*, label FROM (
        SELECT DISTINCT ON (prediction_id) prediction_id, label
        FROM feedback ORDER BY prediction_id, id DESC
    ) AS latest JOIN predictions ON predictions.id = prediction_id
)"""
COUNT_LABELS = f"""
INSERT INTO label_rollups ({BUCKET}, endpoint, confidence_bin, labelled, correct, confidence_sum)
SELECT {BUCKET}, endpoint, {CONFIDENCE_BIN}, count(*),
    count(*) FILTER (WHERE label = sentiment), sum(confidence::double precision)
FROM ({BUCKETED.format(rows=LATEST_LABELS)}) AS bucketed GROUP BY 1, 2, 3, 4, 5
"""
COUNT_FAILURES = f"""
INSERT INTO failure_rollups ({BUCKET}, endpoint, texts)
SELECT {BUCKET}, endpoint, sum(texts)
FROM ({BUCKETED.format(rows="failures")}) AS bucketed GROUP BY 1, 2, 3, 4
"""


def upgrade() -> None:
    op.execute("SET LOCAL work_mem = '256MB'")
    op.execute(MERGE_ROLLUPS)
    op.execute("TRUNCATE rollups")
    op.drop_column("rollups", "endpoint")  # its key and its check go with it
    op.add_column("rollups", sa.Column("routed", sa.Boolean, nullable=False))
    op.create_primary_key("pk_rollups", "rollups", KEYS.split(", "))
    op.execute(f"INSERT INTO rollups ({COLUMNS}) SELECT {COLUMNS} FROM merged_rollups")
    for table, (keys, summed, columns) in OTHERS.items():
        key = ", ".join([BUCKET, *keys])
        op.execute(
            f"CREATE TEMP TABLE merged_{table} ON COMMIT DROP AS "
            f"SELECT {key}, {summed} FROM {table} GROUP BY {key}"
        )
        op.execute(f"TRUNCATE {table}")
        op.drop_column(table, "endpoint")
        op.create_primary_key(f"pk_{table}", table, key.split(", "))
        op.execute(
            f"INSERT INTO {table} ({key}, {columns}) SELECT {key}, {columns} FROM merged_{table}"
        )


def downgrade() -> None:
    """Which endpoint it was is known to the predictions alone, so all is counted anew."""
    op.execute("TRUNCATE rollups, label_rollups, failure_rollups")
    op.drop_column("rollups", "routed")
    keys = {"rollups": ["cache_hit"], "label_rollups": ["confidence_bin"], "failure_rollups": []}
    for table, further in keys.items():
        if table != "rollups":
            op.drop_constraint(f"pk_{table}", table)
        op.add_column(table, sa.Column("endpoint", sa.Text, nullable=False))
        op.create_primary_key(f"pk_{table}", table, [*BUCKET.split(", "), "endpoint", *further])
        op.create_check_constraint(f"ck_{table}_endpoint", table, f"endpoint {ENDPOINTS}")
    op.execute("SET LOCAL enable_nestloop = off")
    op.execute(COUNT_PREDICTIONS)
    op.execute(COUNT_LABELS)
    op.execute(COUNT_FAILURES)
