"""The log tells how many windows of a text were read.

A build from before writes no value, and gets 1, which is what it reads.
"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
# A release that has this migration serves the schema (migrations/compatibility.py).
SERVES_SINCE = "0008"


def upgrade() -> None:
    # A constant default rewrites no row.
    op.execute("ALTER TABLE predictions ADD COLUMN windows smallint NOT NULL DEFAULT 1")


def downgrade() -> None:
    op.execute("ALTER TABLE predictions DROP COLUMN windows")
