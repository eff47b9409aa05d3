"""Rollups of true labels, and the entropy of what was predicted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ENDPOINTS = "IN ('/predict', '/predict/batch', '/predict/ab', '/predict/ab-compare')"
SIZES = "(VALUES (60), (3600), (86400)) AS sizes (seconds)"
BUCKET = "date_bin(make_interval(secs => seconds), created_at, TIMESTAMPTZ 'epoch')"
SCORES = ("score_negative", "score_neutral", "score_positive")
ENTROPY = " + ".join(
    f"coalesce({score}, 0)::double precision "
    f"* ln(greatest(coalesce({score}, 0)::double precision, 1e-300))"
    for score in SCORES
)
ENTROPY_OF_WHAT_IS_THERE = f"""
UPDATE rollups SET entropy_sum = summed.entropy FROM (
    SELECT seconds, {BUCKET} AS bucket, model_version_id, endpoint, cache_hit,
        sum(abs({ENTROPY}) / ln(2::double precision)) AS entropy
    FROM predictions CROSS JOIN {SIZES} GROUP BY 1, 2, 3, 4, 5
) AS summed
WHERE (rollups.bucket_seconds, rollups.bucket, rollups.model_version_id, rollups.endpoint,
    rollups.cache_hit) = (summed.seconds, summed.bucket, summed.model_version_id,
    summed.endpoint, summed.cache_hit)
"""
LABELS_THAT_ARE_THERE = f"""
INSERT INTO label_rollups
SELECT seconds, {BUCKET}, model_version_id, endpoint,
    least(floor(greatest(confidence::double precision, 0) * 50), 49)::smallint,
    count(*), count(*) FILTER (WHERE label = sentiment), sum(confidence::double precision)
FROM (
    SELECT DISTINCT ON (prediction_id) prediction_id, label
    FROM feedback ORDER BY prediction_id, id DESC
) AS latest JOIN predictions ON predictions.id = prediction_id CROSS JOIN {SIZES}
GROUP BY 1, 2, 3, 4, 5
"""


def upgrade() -> None:
    op.add_column(
        "rollups", sa.Column("entropy_sum", sa.Double, nullable=False, server_default="0")
    )
    op.alter_column("rollups", "entropy_sum", server_default=None)
    op.execute(ENTROPY_OF_WHAT_IS_THERE)
    op.create_table(
        "label_rollups",
        sa.Column("bucket_seconds", sa.Integer, nullable=False),
        sa.Column("bucket", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_version_id", sa.SmallInteger, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("confidence_bin", sa.SmallInteger, nullable=False),
        sa.Column("labelled", sa.BigInteger, nullable=False),
        sa.Column("correct", sa.BigInteger, nullable=False),
        sa.Column("confidence_sum", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint(
            "bucket_seconds", "bucket", "model_version_id", "endpoint", "confidence_bin",
            name="pk_label_rollups",
        ),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.id"],
            name="fk_label_rollups_model_version_id_model_versions",
        ),
        sa.CheckConstraint(
            "bucket_seconds IN (60, 3600, 86400)", name="ck_label_rollups_bucket_seconds"
        ),
        sa.CheckConstraint(f"endpoint {ENDPOINTS}", name="ck_label_rollups_endpoint"),
    )  # fmt: skip
    op.execute(LABELS_THAT_ARE_THERE)


def downgrade() -> None:
    op.drop_table("label_rollups")
    op.drop_column("rollups", "entropy_sum")
