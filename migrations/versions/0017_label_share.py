"""A test of the traffic split keeps the share of labels that its verdict expects.

Tests from before, and those that a build from before begins, have none: their verdict is made as
they began, to their end (docs/decisions/0067).
"""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None
# A release that has this migration serves the schema (migrations/compatibility.py).
SERVES_SINCE = "0008"


def upgrade() -> None:
    op.execute("ALTER TABLE experiments ADD COLUMN label_share double precision")


def downgrade() -> None:
    op.execute("ALTER TABLE experiments DROP COLUMN label_share")
