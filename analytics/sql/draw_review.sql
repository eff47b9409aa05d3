-- Draws predictions of one version for the review queue: a Poisson sample, in which every prediction
-- of the pool has its own chance and no other prediction changes it (Saerndal, Swensson, Wretman
-- 1992, 3.5). The pool are the newest predictions of a range that no earlier draw has seen.
-- The chance is the rate times the importance, at most 1; the rate makes the sample `size` on
-- average. One number decides: below the rate, a prediction belongs to the uniformly random part,
-- whatever its importance is.
WITH pool AS MATERIALIZED (
    SELECT p.*, model.version
    FROM model_versions AS model
    CROSS JOIN LATERAL (
        SELECT
            id, created_at, model_version_id, sentiment, confidence, token_count,
            -- The middle one of three, the smaller of two.
            CASE
                WHEN num_nulls(score_negative, score_neutral, score_positive) = 0
                THEN score_negative + score_neutral + score_positive
                    - greatest(score_negative, score_neutral, score_positive)
                    - least(score_negative, score_neutral, score_positive)
                ELSE least(score_negative, score_neutral, score_positive)
            END AS second_score
        FROM predictions
        WHERE model_version_id = model.id AND id >= :low AND id < :high
            AND created_at >= :since AND created_at < :until
        ORDER BY id DESC LIMIT :rows
    ) AS p
    WHERE model.version = :version
    ORDER BY p.id DESC LIMIT :rows
),
seen AS (
    SELECT
        pool.*,
        coalesce(other.sentiment <> pool.sentiment, false) AS is_disputed,
        pool.confidence - pool.second_score < :narrow_margin AS is_unsure,
        pool.token_count = ANY(CAST(:unusual_token_counts AS int[])) AS is_unusual
    FROM pool
    LEFT JOIN comparisons AS of_v1
        ON pool.version = 'v1' AND of_v1.v1_prediction_id = pool.id
    LEFT JOIN comparisons AS of_v2
        ON pool.version = 'v2' AND of_v2.v2_prediction_id = pool.id
    -- The other prediction was made at about the same time: this leads to its partition.
    LEFT JOIN predictions AS other
        ON other.id = coalesce(of_v1.v2_prediction_id, of_v2.v1_prediction_id)
        AND other.id >= :other_low AND other.id < :other_high
),
weighed AS (
    SELECT *, 1 + 7 * is_disputed::int + 3 * is_unsure::int + 2 * is_unusual::int AS importance
    FROM seen
),
-- The predictions of the largest importances are certain, if the rate times the importance would
-- exceed 1; the rate of the others follows from what is left of the size.
classes AS (
    SELECT
        importance,
        coalesce(sum(count(*)) OVER (
            ORDER BY importance DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ), 0) AS certain,
        sum(count(*) * importance) OVER (ORDER BY importance ROWS UNBOUNDED PRECEDING) AS others
    FROM weighed GROUP BY importance
),
chosen AS (
    SELECT coalesce((
        SELECT (:size - certain)::double precision / others::double precision FROM classes
        WHERE certain < :size AND (:size - certain) * importance <= others
        ORDER BY importance DESC LIMIT 1
    ), 1) AS rate
),
drawn AS MATERIALIZED (
    SELECT
        *, least(1, rate * importance) AS probability,
        (
            SELECT feedback.label FROM feedback
            WHERE prediction_id = tried.id ORDER BY feedback.id DESC LIMIT 1
        ) AS label
    FROM (SELECT *, random() AS chance FROM weighed CROSS JOIN chosen) AS tried
    WHERE chance < least(1, rate * importance)
),
draw AS (
    INSERT INTO review_draws (version, drawn_at, since, until, pool, rate)
    SELECT
        :version, :drawn_at,
        CASE WHEN count(*) < :rows THEN :since ELSE min(created_at) END,
        :until, count(*), min(rate)
    FROM pool CROSS JOIN chosen
    HAVING count(*) > 0
    RETURNING id, pool
),
items AS (
    INSERT INTO review_items (
        prediction_id, draw_id, reasons, probability, is_random, labelled_before, position
    )
    SELECT
        drawn.id, draw.id,
        array_remove(ARRAY[
            CASE WHEN is_disputed THEN 'disagreement' END,
            CASE WHEN is_unsure THEN 'low_confidence' END,
            CASE WHEN is_unusual THEN 'unusual' END,
            CASE WHEN chance < rate THEN 'random' END
        ], NULL),
        probability, chance < rate, label IS NOT NULL, random()
    FROM drawn CROSS JOIN draw
    RETURNING prediction_id
),
-- The labels that were there before the draw are part of the sample.
added_to_labels AS (
    INSERT INTO label_rollups AS known (
        bucket_seconds, bucket, model_version_id, confidence_bin, labelled, correct, confidence_sum,
        sampled, weight, weight_correct, weight_confidence, weight_squares
    )
    SELECT
        seconds, date_bin(make_interval(secs => seconds), created_at, TIMESTAMPTZ 'epoch'),
        model_version_id,
        least(floor(greatest(confidence::double precision, 0) * 50), 49)::smallint,
        0, 0, 0,
        count(*), sum(1 / probability),
        coalesce(sum(1 / probability) FILTER (WHERE label = sentiment), 0),
        sum(confidence / probability), sum(1 / (probability * probability))
    FROM drawn CROSS JOIN (VALUES (60), (3600), (86400)) AS sizes (seconds)
    WHERE label IS NOT NULL
    GROUP BY 1, 2, 3, 4
    ON CONFLICT ON CONSTRAINT pk_label_rollups DO UPDATE SET
        sampled = known.sampled + excluded.sampled,
        weight = known.weight + excluded.weight,
        weight_correct = known.weight_correct + excluded.weight_correct,
        weight_confidence = known.weight_confidence + excluded.weight_confidence,
        weight_squares = known.weight_squares + excluded.weight_squares
)
SELECT pool, (SELECT count(*) FROM items) AS items FROM draw
