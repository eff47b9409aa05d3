"""A/B tests know the weights of a model, and no longer its engine.

Each model version gets the row that stands for its weights. Of several engines that is the one that
was used last, so that the test that runs goes on. A build from before writes NULL, and its tests
stay those of its engines (docs/decisions/0045).
"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
# A release that has this migration serves the schema (migrations/compatibility.py).
SERVES_SINCE = "0008"


def upgrade() -> None:
    op.execute(
        "ALTER TABLE model_versions ADD COLUMN weights_id smallint"
        " CONSTRAINT fk_model_versions_weights_id_model_versions REFERENCES model_versions (id)"
    )
    op.execute(
        "UPDATE model_versions AS model SET weights_id = newest.id FROM ("
        "   SELECT DISTINCT ON (version, revision) version, revision, id"
        "   FROM model_versions"
        "   LEFT JOIN ("
        "       SELECT model_version_id, max(bucket) AS used FROM rollups"
        "       WHERE bucket_seconds = 60 GROUP BY model_version_id"
        "   ) AS uses ON model_version_id = id"
        "   ORDER BY version, revision, used DESC NULLS LAST, id DESC"
        ") AS newest"
        " WHERE (model.version, model.revision) = (newest.version, newest.revision)"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE model_versions DROP COLUMN weights_id")
