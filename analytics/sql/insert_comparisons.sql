-- Inserts the staged comparisons, whose predictions are staged too. Each text counts the first time
-- that two models compare it, whatever their engines; without a hash, every comparison is of a new
-- text. A text or subject that comes again notes the day, by which it expires.
WITH inserted AS (
    INSERT INTO comparisons SELECT * FROM comparisons_staging
    ON CONFLICT (id) DO NOTHING
    RETURNING *
),
compared AS (
    SELECT
        coalesce(v1.text_sha256, uuid_send(inserted.id)) AS text_key,
        v1_model.weights_id AS v1_model_version_id,
        v2_model.weights_id AS v2_model_version_id,
        inserted.created_at,
        v1.sentiment AS v1_sentiment,
        v2.sentiment AS v2_sentiment,
        v2.confidence - v1.confidence AS confidence_difference,
        v1.hash_key_id,
        -- A subject of /predict/ab is one of another test.
        CASE WHEN v1.experiment_id IS NULL THEN v1.subject_key END AS subject_key
    FROM inserted
    JOIN predictions_staging AS v1 ON v1.id = v1_prediction_id
    JOIN predictions_staging AS v2 ON v2.id = v2_prediction_id
    JOIN model_versions AS v1_model ON v1_model.id = v1.model_version_id
    JOIN model_versions AS v2_model ON v2_model.id = v2.model_version_id
),
seen_subjects AS (
    INSERT INTO compared_subjects AS known (
        subject_key, v1_model_version_id, v2_model_version_id, last_compared, hash_key_id
    )
    SELECT
        subject_key, v1_model_version_id, v2_model_version_id, max(created_at), min(hash_key_id)
    FROM compared
    WHERE subject_key IS NOT NULL
    GROUP BY 1, 2, 3
    ON CONFLICT ON CONSTRAINT pk_compared_subjects
        DO UPDATE SET last_compared = excluded.last_compared
        WHERE date_bin('1 day', excluded.last_compared, TIMESTAMPTZ 'epoch')
            > date_bin('1 day', known.last_compared, TIMESTAMPTZ 'epoch')
),
seen_texts AS (
    INSERT INTO compared_texts AS known (
        text_key, v1_model_version_id, v2_model_version_id, first_compared,
        v1_sentiment, v2_sentiment, confidence_difference, hash_key_id, subject_key, last_compared
    )
    SELECT DISTINCT ON (text_key, v1_model_version_id, v2_model_version_id)
        *, max(created_at) OVER (PARTITION BY text_key, v1_model_version_id, v2_model_version_id)
    FROM compared
    ORDER BY text_key, v1_model_version_id, v2_model_version_id, created_at
    ON CONFLICT ON CONSTRAINT pk_compared_texts
        DO UPDATE SET last_compared = excluded.last_compared
        WHERE date_bin('1 day', excluded.last_compared, TIMESTAMPTZ 'epoch')
            > date_bin(
                '1 day', coalesce(known.last_compared, known.first_compared), TIMESTAMPTZ 'epoch'
            )
    -- A row that was there already has the transaction that changed it.
    RETURNING *, xmax = 0 AS is_new
)
INSERT INTO comparison_rollups AS known (
    bucket_seconds, bucket, v1_model_version_id, v2_model_version_id, v1_sentiment, v2_sentiment,
    texts, confidence_difference_sum, confidence_difference_squares,
    labelled_negative, labelled_neutral, labelled_positive
)
SELECT
    seconds, date_bin(make_interval(secs => seconds), first_compared, TIMESTAMPTZ 'epoch'),
    v1_model_version_id, v2_model_version_id, v1_sentiment, v2_sentiment,
    count(*),
    sum(confidence_difference::double precision),
    sum(confidence_difference::double precision ^ 2),
    0, 0, 0
FROM seen_texts CROSS JOIN (VALUES (60), (3600), (86400)) AS sizes (seconds)
WHERE is_new
GROUP BY 1, 2, 3, 4, 5, 6
ON CONFLICT ON CONSTRAINT pk_comparison_rollups DO UPDATE SET
    texts = known.texts + excluded.texts,
    confidence_difference_sum
        = known.confidence_difference_sum + excluded.confidence_difference_sum,
    confidence_difference_squares
        = known.confidence_difference_squares + excluded.confidence_difference_squares
