"""A/B tests as they are written: every subject and every compared text counts once.

Statements for the transaction that inserts predictions, under the writers' lock.
"""

from __future__ import annotations

from analytics.tables import assignment_rollups, comparison_rollups
from analytics.upsert_sums import upsert_sums
from core.types import SENTIMENTS

_PAIR = "v1_model_version_id, v2_model_version_id"
_SAID = "v1_sentiment, v2_sentiment"
_NOT_LABELLED = ", ".join(f"0 AS labelled_{sentiment}" for sentiment in SENTIMENTS)

# Of the predictions in `predictions_staging`.
ASSIGN_SUBJECTS = upsert_sums(
    assignment_rollups,
    "(SELECT first_seen AS at, experiment_id, version, 1 AS subjects, 0 AS labelled, 0 AS correct "
    "FROM new_subjects) AS new",
    preceded_by="""WITH new_subjects AS (
        INSERT INTO assignments (experiment_id, subject_key, version, first_seen)
        SELECT DISTINCT ON (experiment_id, subject_key)
            experiment_id, subject_key, version, created_at
        FROM predictions_staging JOIN model_versions ON model_versions.id = model_version_id
        WHERE experiment_id IS NOT NULL
        ORDER BY experiment_id, subject_key, predictions_staging.id
        ON CONFLICT DO NOTHING RETURNING *
    )""",
)

# Of the comparisons in `comparisons_staging`, whose predictions are in `predictions_staging`.
INSERT_COMPARISONS = upsert_sums(
    comparison_rollups,
    f"(SELECT first_compared AS at, {_PAIR}, {_SAID}, 1 AS texts, "
    "confidence_difference::double precision AS confidence_difference_sum, "
    "confidence_difference::double precision ^ 2 AS confidence_difference_squares, "
    f"{_NOT_LABELLED} FROM new_texts) AS new",
    preceded_by=f"""WITH inserted AS (
        INSERT INTO comparisons SELECT * FROM comparisons_staging
        ON CONFLICT DO NOTHING RETURNING *
    ), new_texts AS (
        INSERT INTO compared_texts
            (text_key, {_PAIR}, first_compared, {_SAID}, confidence_difference)
        SELECT DISTINCT ON (text_key, {_PAIR}) * FROM (
            SELECT coalesce(v1.text_sha256, uuid_send(inserted.id)) AS text_key,
                v1.model_version_id AS v1_model_version_id,
                v2.model_version_id AS v2_model_version_id,
                inserted.created_at, v1.sentiment, v2.sentiment, v2.confidence - v1.confidence
            FROM inserted
            JOIN predictions_staging AS v1 ON v1.id = v1_prediction_id
            JOIN predictions_staging AS v2 ON v2.id = v2_prediction_id
        ) AS compared ORDER BY text_key, {_PAIR}, created_at
        ON CONFLICT DO NOTHING RETURNING *
    )""",
)
