"""Sketches of what a sample of the texts is like, by which drift of content is seen.

A build from before writes none, and reads none.
"""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None
# A release that has this migration serves the schema (migrations/compatibility.py).
SERVES_SINCE = "0008"


def upgrade() -> None:
    op.execute(
        "CREATE TABLE content_sketches ("
        "   id uuid CONSTRAINT pk_content_sketches PRIMARY KEY,"
        "   created_at timestamptz NOT NULL,"
        "   version text NOT NULL,"
        "   texts integer NOT NULL,"
        "   sketch bytea NOT NULL,"
        "   CONSTRAINT ck_content_sketches_version CHECK (version IN ('v1', 'v2'))"
        ")"
    )


def downgrade() -> None:
    op.execute("DROP TABLE content_sketches")
