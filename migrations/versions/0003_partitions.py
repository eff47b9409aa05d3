"""Predictions by day, partitioned by their ids, which tell their time; a text may be left out.

Rewrites the table, in which time nothing else can use it: with the migrations after it, some 0.1 s
for each thousand predictions.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

COLUMNS = """id, created_at, model_version_id, endpoint, sentiment, confidence, score_negative,
    score_neutral, score_positive, latency_ms, cache_hit, truncated, token_count, text_characters,
    text_sha256, text"""
# What the first 48 bits of a UUIDv7 say: milliseconds since 1970.
MILLISECONDS = " + ".join(
    f"(get_byte(uuid_send(id), {byte})::bigint << {40 - 8 * byte})" for byte in range(6)
)
ID_IS_OF_ITS_SECOND = f"abs({MILLISECONDS} - extract(epoch FROM created_at) * 1000) <= 1000"
TABLE = """
CREATE TABLE predictions (
    id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    model_version_id smallint NOT NULL,
    endpoint text COLLATE "C" NOT NULL,
    sentiment text COLLATE "C" NOT NULL,
    confidence real NOT NULL,
    score_negative real,
    score_neutral real,
    score_positive real,
    latency_ms real NOT NULL,
    cache_hit boolean NOT NULL,
    truncated boolean NOT NULL,
    token_count smallint NOT NULL,
    text_characters integer NOT NULL,
    text_sha256 bytea,
    text text,
    CONSTRAINT pk_predictions PRIMARY KEY (id),
    CONSTRAINT ck_predictions_endpoint
        CHECK (endpoint IN ('/predict', '/predict/batch', '/predict/ab', '/predict/ab-compare')),
    CONSTRAINT ck_predictions_sentiment CHECK (sentiment IN ('negative', 'neutral', 'positive')),
    CONSTRAINT ck_predictions_confidence CHECK (confidence BETWEEN 0 AND 1)
)
"""
PARTITIONS_OF_WHAT_IS_THERE = f"""
DO $$
DECLARE
    day date;
BEGIN
    FOR day IN
        SELECT DISTINCT (to_timestamp(({MILLISECONDS}) / 1000.0) AT TIME ZONE 'UTC')::date
        FROM predictions_before
    LOOP
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF predictions FOR VALUES FROM (%L) TO (%L)',
            'predictions_' || to_char(day, 'YYYYMMDD'),
            rpad(lpad(to_hex(extract(epoch FROM day)::bigint * 1000), 12, '0'), 32, '0')::uuid,
            rpad(lpad(to_hex(extract(epoch FROM day + 1)::bigint * 1000), 12, '0'), 32, '0')::uuid
        );
    END LOOP;
END $$
"""
REFERENCES = (
    ("comparisons", "v1_prediction_id"),
    ("comparisons", "v2_prediction_id"),
    ("feedback", "prediction_id"),
)


def upgrade() -> None:
    # Ids were taken right after times. Were they ever further apart, the time yields.
    op.execute(
        f"UPDATE predictions SET created_at = to_timestamp(({MILLISECONDS}) / 1000.0) "
        f"WHERE NOT ({ID_IS_OF_ITS_SECOND})"
    )
    _move(
        f"{TABLE.rstrip()} PARTITION BY RANGE (id)",
        f"ALTER TABLE predictions ADD CONSTRAINT ck_predictions_id CHECK ({ID_IS_OF_ITS_SECOND})",
        PARTITIONS_OF_WHAT_IS_THERE,
        "CREATE INDEX ix_predictions_model_version_id_id ON predictions (model_version_id, id)",
    )


def downgrade() -> None:
    _move(TABLE)
    op.create_foreign_key(
        "fk_predictions_model_version_id_model_versions",
        "predictions", "model_versions", ["model_version_id"], ["id"],
    )  # fmt: skip
    op.execute("UPDATE predictions SET text_sha256 = '' WHERE text_sha256 IS NULL")
    op.execute("ALTER TABLE predictions ALTER text_sha256 SET NOT NULL")
    op.create_index("ix_predictions_created_at", "predictions", ["created_at"])


def _move(table: str, *more: str) -> None:
    """Make predictions anew as `table` says and move every row there."""
    for referring, column in REFERENCES:
        op.drop_constraint(f"fk_{referring}_{column}_predictions", referring, type_="foreignkey")
    op.rename_table("predictions", "predictions_before")
    op.execute("ALTER TABLE predictions_before RENAME CONSTRAINT pk_predictions TO pk_before")
    op.execute(table)
    for statement in more:
        op.execute(statement)
    op.execute(f"INSERT INTO predictions ({COLUMNS}) SELECT {COLUMNS} FROM predictions_before")
    op.drop_table("predictions_before")
    for referring, column in REFERENCES:
        op.create_foreign_key(
            f"fk_{referring}_{column}_predictions", referring, "predictions", [column], ["id"]
        )
