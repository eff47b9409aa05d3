"""Labels of the review queue count by blocks of its items, once nearly all of a block is labelled.

Items from before, and those that a build from before draws, are in no block: each of their labels
counts at once, as it did (docs/decisions/0072).
"""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None
# A release that has this migration serves the schema (migrations/compatibility.py).
SERVES_SINCE = "0008"


def upgrade() -> None:
    op.execute("ALTER TABLE review_draws ADD COLUMN open_block bigint")
    op.execute("ALTER TABLE review_items ADD COLUMN block bigint")
    op.execute("ALTER TABLE review_items ADD COLUMN counts boolean NOT NULL DEFAULT true")
    op.execute("CREATE INDEX ix_review_items_block ON review_items (block)")


def downgrade() -> None:
    op.execute("DROP INDEX ix_review_items_block")
    op.execute("ALTER TABLE review_items DROP COLUMN counts")
    op.execute("ALTER TABLE review_items DROP COLUMN block")
    op.execute("ALTER TABLE review_draws DROP COLUMN open_block")
