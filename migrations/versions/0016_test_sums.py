"""Comparisons have subjects, and an A/B test keeps its sums for its life.

A build from before writes no subject and no last day: its texts count by themselves, and its rows
expire by their first day. It drops the day sums of a running test with their day, as it always did
(docs/decisions/0063).
"""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None
# A release that has this migration serves the schema (migrations/compatibility.py).
SERVES_SINCE = "0008"

MODELS = ("v1_model_version_id", "v2_model_version_id")


def upgrade() -> None:
    op.execute("ALTER TABLE assignments ADD COLUMN last_seen timestamptz")
    op.execute(
        "ALTER TABLE compared_texts"
        " ADD COLUMN last_compared timestamptz,"
        " ADD COLUMN subject_key bytea,"
        " ADD COLUMN is_repeat boolean NOT NULL DEFAULT false"
    )
    op.execute(
        "ALTER TABLE comparison_rollups ADD COLUMN labelled_repeats bigint NOT NULL DEFAULT 0"
    )
    columns = ", ".join(
        f"{name} smallint CONSTRAINT fk_compared_subjects_{name}_model_versions"
        " REFERENCES model_versions (id)"
        for name in MODELS
    )
    op.execute(
        f"CREATE TABLE compared_subjects (subject_key bytea, {columns},"
        " last_compared timestamptz NOT NULL,"
        " is_labelled boolean NOT NULL DEFAULT false,"
        " hash_key_id smallint,"
        f" CONSTRAINT pk_compared_subjects PRIMARY KEY (subject_key, {', '.join(MODELS)}))"
    )
    op.execute(
        "CREATE INDEX ix_compared_subjects_last_compared"
        " ON compared_subjects USING brin (last_compared)"
    )


def downgrade() -> None:
    op.execute("DROP TABLE compared_subjects")
    op.execute("ALTER TABLE comparison_rollups DROP COLUMN labelled_repeats")
    op.execute(
        "ALTER TABLE compared_texts"
        " DROP COLUMN last_compared, DROP COLUMN subject_key, DROP COLUMN is_repeat"
    )
    op.execute("ALTER TABLE assignments DROP COLUMN last_seen")
