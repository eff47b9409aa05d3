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
        *, row_number() OVER (ORDER BY position) - 1 AS place, count(*) OVER () AS items
    FROM (
        SELECT
            *, random() AS position, least(1, rate * importance) AS probability,
            EXISTS (SELECT FROM feedback WHERE prediction_id = tried.id) AS is_labelled
        FROM (SELECT *, random() AS chance FROM weighed CROSS JOIN chosen) AS tried
        WHERE chance < least(1, rate * importance)
    ) AS drawn
),
-- The items of a large draw are in blocks of their own, each of at least `block_items`. Those of a
-- small one join the items of small draws before.
blocks AS MATERIALIZED (
    SELECT
        1 + greatest(
            (SELECT max(block) FROM review_items), (SELECT max(open_block) FROM review_draws), 0
        ) AS first_new,
        (
            SELECT last.open_block
            FROM (
                SELECT open_block FROM review_draws
                WHERE version = :version ORDER BY until DESC, id DESC LIMIT 1
            ) AS last
            WHERE (SELECT count(*) FROM review_items WHERE block = last.open_block) < :block_items
        ) AS open
),
draw AS (
    INSERT INTO review_draws (version, drawn_at, since, until, pool, rate, open_block)
    SELECT
        :version, :drawn_at,
        CASE WHEN count(*) < :rows THEN :since ELSE min(created_at) END,
        :until, count(*), min(rate),
        (
            SELECT CASE WHEN max(drawn.items) < :block_items THEN coalesce(open, first_new) ELSE open END
            FROM blocks LEFT JOIN drawn ON true GROUP BY open, first_new
        )
    FROM pool CROSS JOIN chosen
    HAVING count(*) > 0
    RETURNING id, pool
),
items AS (
    INSERT INTO review_items (
        prediction_id, draw_id, reasons, probability, is_random, labelled_before, position,
        block, counts
    )
    SELECT
        drawn.id, draw.id,
        array_remove(ARRAY[
            CASE WHEN is_disputed THEN 'disagreement' END,
            CASE WHEN is_unsure THEN 'low_confidence' END,
            CASE WHEN is_unusual THEN 'unusual' END,
            CASE WHEN chance < rate THEN 'random' END
        ], NULL),
        probability, chance < rate, is_labelled, position,
        CASE
            WHEN items < :block_items THEN coalesce(open, first_new)
            ELSE first_new + place * (items / :block_items) / items
        END,
        false
    FROM drawn CROSS JOIN draw CROSS JOIN blocks
    RETURNING prediction_id
)
SELECT pool, (SELECT array_agg(prediction_id) FROM items) AS items FROM draw
