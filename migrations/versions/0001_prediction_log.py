"""The prediction log: model versions, predictions, comparisons, feedback."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SENTIMENTS = "IN ('negative', 'neutral', 'positive')"
ENDPOINTS = "IN ('/predict', '/predict/batch', '/predict/ab', '/predict/ab-compare')"


def upgrade() -> None:
    op.create_table(
        "model_versions",
        sa.Column("id", sa.SmallInteger, sa.Identity(), nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("first_seen", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model_versions"),
        sa.UniqueConstraint(
            "version", "revision", "engine", name="uq_model_versions_version_revision_engine"
        ),
        sa.CheckConstraint("version IN ('v1', 'v2')", name="ck_model_versions_version"),
    )
    op.create_table(
        "predictions",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_version_id", sa.SmallInteger, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("sentiment", sa.Text, nullable=False),
        sa.Column("confidence", postgresql.REAL, nullable=False),
        sa.Column("score_negative", postgresql.REAL),
        sa.Column("score_neutral", postgresql.REAL),
        sa.Column("score_positive", postgresql.REAL),
        sa.Column("latency_ms", postgresql.REAL, nullable=False),
        sa.Column("cache_hit", sa.Boolean, nullable=False),
        sa.Column("truncated", sa.Boolean, nullable=False),
        sa.Column("token_count", sa.SmallInteger, nullable=False),
        sa.Column("text_characters", sa.Integer, nullable=False),
        sa.Column("text_sha256", sa.LargeBinary, nullable=False),
        sa.Column("text", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_predictions"),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.id"],
            name="fk_predictions_model_version_id_model_versions",
        ),
        sa.CheckConstraint(f"endpoint {ENDPOINTS}", name="ck_predictions_endpoint"),
        sa.CheckConstraint(f"sentiment {SENTIMENTS}", name="ck_predictions_sentiment"),
        sa.CheckConstraint("confidence BETWEEN 0 AND 1", name="ck_predictions_confidence"),
    )
    op.create_index("ix_predictions_created_at", "predictions", ["created_at"])
    op.create_table(
        "comparisons",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("v1_prediction_id", sa.Uuid, nullable=False),
        sa.Column("v2_prediction_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_comparisons"),
        sa.UniqueConstraint("v1_prediction_id", name="uq_comparisons_v1_prediction_id"),
        sa.UniqueConstraint("v2_prediction_id", name="uq_comparisons_v2_prediction_id"),
        sa.ForeignKeyConstraint(
            ["v1_prediction_id"],
            ["predictions.id"],
            name="fk_comparisons_v1_prediction_id_predictions",
        ),
        sa.ForeignKeyConstraint(
            ["v2_prediction_id"],
            ["predictions.id"],
            name="fk_comparisons_v2_prediction_id_predictions",
        ),
    )
    op.create_table(
        "feedback",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("prediction_id", sa.Uuid, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_feedback"),
        sa.ForeignKeyConstraint(
            ["prediction_id"],
            ["predictions.id"],
            name="fk_feedback_prediction_id_predictions",
        ),
        sa.CheckConstraint(f"label {SENTIMENTS}", name="ck_feedback_label"),
    )
    op.create_index("ix_feedback_prediction_id_id", "feedback", ["prediction_id", "id"])


def downgrade() -> None:
    op.drop_table("feedback")
    op.drop_table("comparisons")
    op.drop_table("predictions")
    op.drop_table("model_versions")
