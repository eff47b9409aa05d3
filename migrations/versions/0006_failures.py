"""Texts that a version failed to answer, and a rollup of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ENDPOINTS = "IN ('/predict', '/predict/batch', '/predict/ab', '/predict/ab-compare')"


def upgrade() -> None:
    op.create_table(
        "failures",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_version_id", sa.SmallInteger, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("texts", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_failures"),
        _model_reference("failures"),
        sa.CheckConstraint(f"endpoint {ENDPOINTS}", name="ck_failures_endpoint"),
    )
    op.create_table(
        "failure_rollups",
        sa.Column("bucket_seconds", sa.Integer, nullable=False),
        sa.Column("bucket", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_version_id", sa.SmallInteger, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("texts", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(
            "bucket_seconds", "bucket", "model_version_id", "endpoint", name="pk_failure_rollups"
        ),
        _model_reference("failure_rollups"),
        sa.CheckConstraint(
            "bucket_seconds IN (60, 3600, 86400)", name="ck_failure_rollups_bucket_seconds"
        ),
        sa.CheckConstraint(f"endpoint {ENDPOINTS}", name="ck_failure_rollups_endpoint"),
    )


def downgrade() -> None:
    op.drop_table("failure_rollups")
    op.drop_table("failures")


def _model_reference(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["model_version_id"],
        ["model_versions.id"],
        name=f"fk_{table}_model_version_id_model_versions",
    )
