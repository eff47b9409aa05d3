"""True labels as they are written: in every count, the latest of a prediction is what counts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from analytics.rollups import WRITERS_LOCK
from analytics.tables import assignment_rollups, comparison_rollups, label_rollups
from analytics.upsert_sums import upsert_sums
from core.types import SENTIMENTS, Sentiment
from stats.histogram import CONFIDENCE

_CHANGED = """WITH changed AS (
    SELECT * FROM (
        SELECT p.*, given.label, given.at AS given_at, (
            SELECT feedback.label FROM feedback
            WHERE prediction_id = p.id ORDER BY feedback.id DESC LIMIT 1
        ) AS before
        FROM unnest(CAST(:ids AS uuid[]), CAST(:labels AS text[]), CAST(:times AS timestamptz[]))
            AS given (prediction_id, label, at)
        JOIN predictions AS p ON p.id = given.prediction_id
    ) AS labelled WHERE before IS DISTINCT FROM label
)"""
_LABEL_PREDICTIONS = upsert_sums(
    label_rollups,
    f"""(SELECT created_at AS at, model_version_id,
        {CONFIDENCE.sql("confidence")} AS confidence_bin,
        CAST(before IS NULL AS int) AS labelled,
        CAST(label = sentiment AS int)
            - CAST(coalesce(before = sentiment, false) AS int) AS correct,
        CASE WHEN before IS NULL THEN confidence::double precision ELSE 0 END AS confidence_sum
    FROM changed) AS changes""",
    preceded_by=_CHANGED,
)
# Of a subject the prediction that was labelled first.
_LABEL_SUBJECTS = upsert_sums(
    assignment_rollups,
    """(SELECT first_seen AS at, experiment_id, version, 0 AS subjects,
        CAST(labelled_prediction_id IS NULL AS int) AS labelled,
        CAST(right_now AS int) - CAST(coalesce(correct, false) AS int) AS correct
    FROM judged) AS changes""",
    preceded_by=f"""{_CHANGED}, judged AS (
        SELECT DISTINCT ON (experiment_id, subject_key)
            assignments.*, changed.id AS prediction_id, label = sentiment AS right_now
        FROM changed JOIN assignments USING (experiment_id, subject_key)
        WHERE coalesce(labelled_prediction_id, changed.id) = changed.id
        ORDER BY experiment_id, subject_key, given_at
    ), kept AS (
        UPDATE assignments AS a
        SET labelled_prediction_id = judged.prediction_id, correct = judged.right_now
        FROM judged WHERE (a.experiment_id, a.subject_key)
            = (judged.experiment_id, judged.subject_key)
    )""",
)
_RELABELLED = ", ".join(
    f"CAST(label = '{sentiment}' AS int) - CAST(coalesce(before = '{sentiment}', false) AS int) "
    f"AS labelled_{sentiment}"
    for sentiment in SENTIMENTS
)
# Of a text the last label, whichever comparison of it that was given to.
_LABEL_TEXTS = upsert_sums(
    comparison_rollups,
    f"""(SELECT first_compared AS at, v1_model_version_id, v2_model_version_id,
        v1_sentiment, v2_sentiment, 0 AS texts, 0 AS confidence_difference_sum,
        0 AS confidence_difference_squares, {_RELABELLED}
    FROM judged) AS changes""",
    preceded_by=f"""{_CHANGED}, judged AS (
        SELECT DISTINCT ON (text_key, v1_model_version_id, v2_model_version_id)
            t.text_key, t.v1_model_version_id, t.v2_model_version_id, t.first_compared,
            t.v1_sentiment, t.v2_sentiment, changed.label, t.label AS before
        FROM changed
        JOIN comparisons AS c ON changed.endpoint IN ('/predict/ab-compare', '/predict', 'shadow')
            AND (c.v1_prediction_id = changed.id OR c.v2_prediction_id = changed.id)
        JOIN predictions AS v1 ON v1.id = c.v1_prediction_id
        JOIN predictions AS v2 ON v2.id = c.v2_prediction_id
        JOIN compared_texts AS t
            ON t.text_key = coalesce(v1.text_sha256, uuid_send(c.id))
            AND t.v1_model_version_id = v1.model_version_id
            AND t.v2_model_version_id = v2.model_version_id
        ORDER BY text_key, v1_model_version_id, v2_model_version_id, given_at DESC
    ), kept AS (
        UPDATE compared_texts AS t SET label = judged.label FROM judged
        WHERE (t.text_key, t.v1_model_version_id, t.v2_model_version_id)
            = (judged.text_key, judged.v1_model_version_id, judged.v2_model_version_id)
    )""",
)
# Last, for the others ask what the label was before.
_KEEP = text(
    f"{_CHANGED} INSERT INTO feedback (prediction_id, label, created_at) "
    "SELECT id, label, given_at FROM changed"
)


async def keep_labels(
    connection: AsyncConnection, given: Sequence[tuple[UUID, Sentiment, datetime]]
) -> None:
    """Keep the labels that change something, at most one of each prediction, and count them.

    At least one is given; labels of unknown predictions are passed over.
    """
    ids, labels, times = zip(*given, strict=True)
    parameters = {"ids": ids, "labels": labels, "times": times}
    # Two labels for one prediction come in a row, so neither misses the other.
    await connection.execute(WRITERS_LOCK)
    for statement in (_LABEL_PREDICTIONS, _LABEL_SUBJECTS, _LABEL_TEXTS, _KEEP):
        await connection.execute(statement, parameters)
