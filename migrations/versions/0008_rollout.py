"""Rollout policies; predictions that a challenger made in the shadow of others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

BEFORE = "'/predict', '/predict/batch', '/predict/ab', '/predict/ab-compare'"
CONSTRAINTS = {
    "predictions": "ck_predictions_endpoint",
    "failures": "ck_failures_ck_failures_endpoint",
}


def allow_endpoints(endpoints: str) -> None:
    for table, constraint in CONSTRAINTS.items():
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {constraint}")
        op.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT {constraint} CHECK (endpoint IN ({endpoints}))"
        )


def upgrade() -> None:
    op.create_table(
        "rollout_policies",
        sa.Column("version", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("policy", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_rollout_policies"),
        sa.CheckConstraint(
            "action IN ('set', 'promote', 'roll_back', 'next_step', 'reload', 'guardrail')",
            name="action",
        ),
    )
    allow_endpoints(f"{BEFORE}, 'shadow'")


def downgrade() -> None:
    # Each is half of a comparison, and counted as those are.
    for table in CONSTRAINTS:
        op.execute(f"UPDATE {table} SET endpoint = '/predict/ab-compare' WHERE endpoint = 'shadow'")
    allow_endpoints(BEFORE)
    op.drop_table("rollout_policies")
