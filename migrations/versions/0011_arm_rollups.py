"""Rollups of the texts that either version might have answered, by route.

Guardrails compare champion and challenger over these alone. A build from before writes no group,
and so no evidence (docs/decisions/0053).
"""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None
# A release that has this migration serves the schema (migrations/compatibility.py).
SERVES_SINCE = "0008"

ENDPOINTS = "('/predict', '/predict/batch', '/predict/ab', '/predict/ab-compare', 'shadow')"


def upgrade() -> None:
    op.execute("ALTER TABLE predictions ADD COLUMN arm_group smallint")
    op.execute("ALTER TABLE failures ADD COLUMN arm_group smallint")
    op.execute(
        "CREATE TABLE arm_rollups ("
        "   bucket_seconds integer,"
        "   bucket timestamptz,"
        "   model_version_id smallint"
        "       CONSTRAINT fk_arm_rollups_model_version_id_model_versions"
        "       REFERENCES model_versions (id),"
        "   endpoint text,"
        "   outcome_bins smallint[] NOT NULL,"
        "   outcome_counts bigint[] NOT NULL,"
        "   latency_ms_bins smallint[] NOT NULL,"
        "   latency_ms_counts bigint[] NOT NULL,"
        "   CONSTRAINT pk_arm_rollups"
        "       PRIMARY KEY (bucket_seconds, bucket, model_version_id, endpoint),"
        "   CONSTRAINT ck_arm_rollups_bucket_seconds"
        "       CHECK (bucket_seconds IN (60, 3600, 86400)),"
        f"  CONSTRAINT ck_arm_rollups_endpoint CHECK (endpoint IN {ENDPOINTS})"
        ")"
    )


def downgrade() -> None:
    op.execute("DROP TABLE arm_rollups")
    op.execute("ALTER TABLE failures DROP COLUMN arm_group")
    op.execute("ALTER TABLE predictions DROP COLUMN arm_group")
