"""Rollups: what queries need of the predictions of a minute, an hour and a day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ENDPOINTS = "IN ('/predict', '/predict/batch', '/predict/ab', '/predict/ab-compare')"
MEASURES = ("latency_ms", "confidence", "text_characters", "token_count")

GROUP = "seconds, bucket, model_version_id, endpoint, cache_hit"
# As analytics/rollups.py does it; written out, because a migration is not to change with it.
ROLL_UP_WHAT_IS_THERE = f"""
WITH bucketed AS (
    SELECT sizes.seconds, date_bin(make_interval(secs => sizes.seconds), created_at,
        TIMESTAMPTZ 'epoch') AS bucket, p.*
    FROM predictions AS p CROSS JOIN (VALUES (60), (3600), (86400)) AS sizes (seconds)
), counted AS (
    SELECT {GROUP},
        count(*) FILTER (WHERE sentiment = 'negative') AS negative,
        count(*) FILTER (WHERE sentiment = 'neutral') AS neutral,
        count(*) FILTER (WHERE sentiment = 'positive') AS positive,
        count(*) FILTER (WHERE truncated) AS truncated,
        sum(confidence::double precision) AS confidence_sum,
        sum(latency_ms::double precision) AS latency_ms_sum
    FROM bucketed GROUP BY {GROUP}
), binned AS (
    SELECT {GROUP}, measure, bin, count(*) AS n
    FROM bucketed CROSS JOIN LATERAL (VALUES
        ('l', ceil(ln(least(greatest(latency_ms::double precision, 0.01), 3600000.0))
            / 0.020000666706669525)::smallint),
        ('c', least(floor(greatest(confidence::double precision, 0) * 50), 49)::smallint),
        ('x', ceil(ln(least(greatest(text_characters::double precision, 1.0), 1000000.0))
            / 0.20067069546215116)::smallint),
        ('t', ceil(ln(least(greatest(token_count::double precision, 1.0), 1000000.0))
            / 0.20067069546215116)::smallint)
    ) AS measured (measure, bin)
    GROUP BY {GROUP}, measure, bin
), histograms AS (
    SELECT {GROUP},
        array_agg(bin ORDER BY bin) FILTER (WHERE measure = 'l') AS latency_ms_bins,
        array_agg(n ORDER BY bin) FILTER (WHERE measure = 'l') AS latency_ms_counts,
        array_agg(bin ORDER BY bin) FILTER (WHERE measure = 'c') AS confidence_bins,
        array_agg(n ORDER BY bin) FILTER (WHERE measure = 'c') AS confidence_counts,
        array_agg(bin ORDER BY bin) FILTER (WHERE measure = 'x') AS text_characters_bins,
        array_agg(n ORDER BY bin) FILTER (WHERE measure = 'x') AS text_characters_counts,
        array_agg(bin ORDER BY bin) FILTER (WHERE measure = 't') AS token_count_bins,
        array_agg(n ORDER BY bin) FILTER (WHERE measure = 't') AS token_count_counts
    FROM binned GROUP BY {GROUP}
)
INSERT INTO rollups
SELECT {GROUP}, negative, neutral, positive, truncated, confidence_sum, latency_ms_sum,
    latency_ms_bins, latency_ms_counts, confidence_bins, confidence_counts,
    text_characters_bins, text_characters_counts, token_count_bins, token_count_counts
FROM counted JOIN histograms USING ({GROUP})
"""


def upgrade() -> None:
    op.create_table(
        "rollups",
        sa.Column("bucket_seconds", sa.Integer, nullable=False),
        sa.Column("bucket", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_version_id", sa.SmallInteger, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("cache_hit", sa.Boolean, nullable=False),
        sa.Column("negative", sa.BigInteger, nullable=False),
        sa.Column("neutral", sa.BigInteger, nullable=False),
        sa.Column("positive", sa.BigInteger, nullable=False),
        sa.Column("truncated", sa.BigInteger, nullable=False),
        sa.Column("confidence_sum", sa.Double, nullable=False),
        sa.Column("latency_ms_sum", sa.Double, nullable=False),
        *(
            sa.Column(f"{measure}_{part}", postgresql.ARRAY(kind), nullable=False)
            for measure in MEASURES
            for part, kind in (("bins", sa.SmallInteger), ("counts", sa.BigInteger))
        ),
        sa.PrimaryKeyConstraint(
            "bucket_seconds", "bucket", "model_version_id", "endpoint", "cache_hit",
            name="pk_rollups",
        ),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.id"],
            name="fk_rollups_model_version_id_model_versions",
        ),
        sa.CheckConstraint("bucket_seconds IN (60, 3600, 86400)", name="ck_rollups_bucket_seconds"),
        sa.CheckConstraint(f"endpoint {ENDPOINTS}", name="ck_rollups_endpoint"),
    )  # fmt: skip
    op.execute("SET LOCAL enable_nestloop = off")
    op.execute(ROLL_UP_WHAT_IS_THERE)


def downgrade() -> None:
    op.drop_table("rollups")
