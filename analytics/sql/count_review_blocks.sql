-- Lets the labels of a block of the review queue count, once nearly all of its items have one; `ids`
-- are predictions that got a label. Before, the labels are those of whatever somebody reported, and
-- mostly mistakes. The label of a prediction that was compared may be that of the other one too. A
-- block that small draws still fill has fewer than `block_items`; one of which items were erased too.
WITH touched AS (
    SELECT block FROM review_items WHERE prediction_id = ANY(CAST(:ids AS uuid[]))
    UNION
    SELECT item.block FROM comparisons
    JOIN review_items AS item ON item.prediction_id = v2_prediction_id
    WHERE v1_prediction_id = ANY(CAST(:ids AS uuid[]))
    UNION
    SELECT item.block FROM comparisons
    JOIN review_items AS item ON item.prediction_id = v1_prediction_id
    WHERE v2_prediction_id = ANY(CAST(:ids AS uuid[]))
),
labels AS MATERIALIZED (
    SELECT
        item.prediction_id, item.block, item.probability,
        (
            SELECT feedback.label FROM feedback
            WHERE feedback.prediction_id = item.prediction_id ORDER BY feedback.id DESC LIMIT 1
        ) AS label
    FROM touched JOIN review_items AS item USING (block)
    WHERE NOT item.counts
),
open_blocks AS (
    SELECT DISTINCT ON (version) version, open_block AS block
    FROM review_draws ORDER BY version ASC, until DESC, id DESC
),
full_blocks AS (
    SELECT block FROM labels GROUP BY block
    HAVING
        (count(*) >= :block_items OR block NOT IN (SELECT block FROM open_blocks WHERE block IS NOT NULL))
        AND count(label) >= CAST(:labelled_share AS double precision) * count(*)
),
counted AS (
    UPDATE review_items AS item SET counts = true
    FROM full_blocks WHERE item.block = full_blocks.block
)
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
FROM labels
JOIN full_blocks USING (block)
JOIN predictions ON predictions.id = labels.prediction_id
CROSS JOIN (VALUES (60), (3600), (86400)) AS sizes (seconds)
WHERE label IS NOT NULL
GROUP BY 1, 2, 3, 4
ON CONFLICT ON CONSTRAINT pk_label_rollups DO UPDATE SET
    sampled = known.sampled + excluded.sampled,
    weight = known.weight + excluded.weight,
    weight_correct = known.weight_correct + excluded.weight_correct,
    weight_confidence = known.weight_confidence + excluded.weight_confidence,
    weight_squares = known.weight_squares + excluded.weight_squares
