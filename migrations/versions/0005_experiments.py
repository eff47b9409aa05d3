"""A/B tests: who was dealt what, which texts were compared, and rollups of both."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SENTIMENTS = "IN ('negative', 'neutral', 'positive')"
VERSIONS = "IN ('v1', 'v2')"
# By each text the first comparison of it, with the last label that any of them was given.
TEXTS_THAT_WERE_COMPARED = """
INSERT INTO compared_texts
SELECT DISTINCT ON (1, 2, 3) coalesce(v1.text_sha256, uuid_send(c.id)) AS text_key,
    v1.model_version_id, v2.model_version_id, c.created_at, v1.sentiment, v2.sentiment,
    v2.confidence - v1.confidence, last_value(f.label) OVER (
        PARTITION BY coalesce(v1.text_sha256, uuid_send(c.id)),
            v1.model_version_id, v2.model_version_id
        ORDER BY f.id NULLS FIRST ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
    )
FROM comparisons AS c
JOIN predictions AS v1 ON v1.id = c.v1_prediction_id
JOIN predictions AS v2 ON v2.id = c.v2_prediction_id
LEFT JOIN feedback AS f ON f.prediction_id IN (v1.id, v2.id)
ORDER BY 1, 2, 3, c.id
"""
COMPARISONS_THAT_ARE_THERE = """
INSERT INTO comparison_rollups
SELECT seconds, date_bin(make_interval(secs => seconds), first_compared, TIMESTAMPTZ 'epoch'),
    v1_model_version_id, v2_model_version_id, v1_sentiment, v2_sentiment, count(*),
    sum(confidence_difference::double precision),
    sum(confidence_difference::double precision ^ 2),
    count(*) FILTER (WHERE label = 'negative'), count(*) FILTER (WHERE label = 'neutral'),
    count(*) FILTER (WHERE label = 'positive')
FROM compared_texts CROSS JOIN (VALUES (60), (3600), (86400)) AS sizes (seconds)
GROUP BY 1, 2, 3, 4, 5, 6
"""


def upgrade() -> None:
    op.create_table(
        "experiments",
        sa.Column("id", sa.SmallInteger, sa.Identity(), nullable=False),
        sa.Column("salt", sa.Text, nullable=False),
        sa.Column("v2_percent", sa.Double, nullable=False),
        sa.Column("v1_model_version_id", sa.SmallInteger, nullable=False),
        sa.Column("v2_model_version_id", sa.SmallInteger, nullable=False),
        sa.Column("first_seen", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_experiments"),
        sa.UniqueConstraint(
            "salt", "v2_percent", "v1_model_version_id", "v2_model_version_id",
            name="uq_experiments_experiment",
        ),
        *_model_references("experiments", "v1_model_version_id", "v2_model_version_id"),
    )  # fmt: skip
    op.add_column("predictions", sa.Column("experiment_id", sa.SmallInteger))
    op.add_column("predictions", sa.Column("subject_key", sa.LargeBinary))
    op.create_table(
        "assignments",
        sa.Column("experiment_id", sa.SmallInteger, nullable=False),
        sa.Column("subject_key", sa.LargeBinary, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("first_seen", sa.DateTime(timezone=True), nullable=False),
        sa.Column("labelled_prediction_id", sa.Uuid),
        sa.Column("correct", sa.Boolean),
        sa.PrimaryKeyConstraint("experiment_id", "subject_key", name="pk_assignments"),
        _experiment_reference("assignments"),
        sa.CheckConstraint(f"version {VERSIONS}", name="ck_assignments_version"),
    )
    op.create_index(
        "ix_assignments_first_seen", "assignments", ["first_seen"], postgresql_using="brin"
    )
    op.create_table(
        "assignment_rollups",
        *_bucket("assignment_rollups"),
        sa.Column("experiment_id", sa.SmallInteger, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("subjects", sa.BigInteger, nullable=False),
        sa.Column("labelled", sa.BigInteger, nullable=False),
        sa.Column("correct", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(
            "bucket_seconds", "bucket", "experiment_id", "version", name="pk_assignment_rollups"
        ),
        _experiment_reference("assignment_rollups"),
        sa.CheckConstraint(f"version {VERSIONS}", name="ck_assignment_rollups_version"),
    )
    op.create_table(
        "compared_texts",
        sa.Column("text_key", sa.LargeBinary, nullable=False),
        sa.Column("v1_model_version_id", sa.SmallInteger, nullable=False),
        sa.Column("v2_model_version_id", sa.SmallInteger, nullable=False),
        sa.Column("first_compared", sa.DateTime(timezone=True), nullable=False),
        sa.Column("v1_sentiment", sa.Text, nullable=False),
        sa.Column("v2_sentiment", sa.Text, nullable=False),
        sa.Column("confidence_difference", sa.REAL, nullable=False),
        sa.Column("label", sa.Text),
        sa.PrimaryKeyConstraint(
            "text_key", "v1_model_version_id", "v2_model_version_id", name="pk_compared_texts"
        ),
        *_model_references("compared_texts", "v1_model_version_id", "v2_model_version_id"),
        *_sentiments("compared_texts", "v1_sentiment", "v2_sentiment", "label"),
    )
    op.create_index(
        "ix_compared_texts_first_compared", "compared_texts", ["first_compared"],
        postgresql_using="brin",
    )  # fmt: skip
    op.create_table(
        "comparison_rollups",
        *_bucket("comparison_rollups"),
        sa.Column("v1_model_version_id", sa.SmallInteger, nullable=False),
        sa.Column("v2_model_version_id", sa.SmallInteger, nullable=False),
        sa.Column("v1_sentiment", sa.Text, nullable=False),
        sa.Column("v2_sentiment", sa.Text, nullable=False),
        sa.Column("texts", sa.BigInteger, nullable=False),
        sa.Column("confidence_difference_sum", sa.Double, nullable=False),
        sa.Column("confidence_difference_squares", sa.Double, nullable=False),
        sa.Column("labelled_negative", sa.BigInteger, nullable=False),
        sa.Column("labelled_neutral", sa.BigInteger, nullable=False),
        sa.Column("labelled_positive", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(
            "bucket_seconds", "bucket", "v1_model_version_id", "v2_model_version_id",
            "v1_sentiment", "v2_sentiment", name="pk_comparison_rollups",
        ),
        *_model_references("comparison_rollups", "v1_model_version_id", "v2_model_version_id"),
        *_sentiments("comparison_rollups", "v1_sentiment", "v2_sentiment"),
    )  # fmt: skip
    op.execute(TEXTS_THAT_WERE_COMPARED)
    op.execute(COMPARISONS_THAT_ARE_THERE)


def downgrade() -> None:
    op.drop_table("comparison_rollups")
    op.drop_table("compared_texts")
    op.drop_table("assignment_rollups")
    op.drop_table("assignments")
    op.drop_column("predictions", "subject_key")
    op.drop_column("predictions", "experiment_id")
    op.drop_table("experiments")


def _bucket(table: str) -> list[sa.Column[object] | sa.CheckConstraint]:
    return [
        sa.Column("bucket_seconds", sa.Integer, nullable=False),
        sa.Column("bucket", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "bucket_seconds IN (60, 3600, 86400)", name=f"ck_{table}_bucket_seconds"
        ),
    ]


def _model_references(table: str, *columns: str) -> list[sa.ForeignKeyConstraint]:
    return [
        sa.ForeignKeyConstraint(
            [column], ["model_versions.id"], name=f"fk_{table}_{column}_model_versions"
        )
        for column in columns
    ]


def _experiment_reference(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["experiment_id"], ["experiments.id"], name=f"fk_{table}_experiment_id_experiments"
    )


def _sentiments(table: str, *columns: str) -> list[sa.CheckConstraint]:
    return [
        sa.CheckConstraint(f"{column} {SENTIMENTS}", name=f"ck_{table}_{column}")
        for column in columns
    ]
