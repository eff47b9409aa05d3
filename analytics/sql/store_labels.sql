-- Stores true labels and counts them; the latest label of a prediction is the one that counts.
-- A label that equals the one before, or whose prediction is unknown, changes nothing. All parts of
-- the statement see the tables as they were before it.
-- The label of a prediction that the review queue drew counts with its weight, apart from the others;
-- a test counts it if it belongs to the uniformly random part. If the prediction had a label before
-- it was drawn, its label counts among the others too.
WITH changed AS (
    SELECT * FROM (
        SELECT
            p.id, p.created_at, p.model_version_id, p.endpoint, p.sentiment, p.confidence,
            p.experiment_id, p.subject_key, given.label, given.at AS given_at,
            1 / item.probability AS weight,
            coalesce(item.labelled_before, true) AS is_ordinary,
            coalesce(item.labelled_before OR item.is_random, true) AS counts_in_tests,
            (
                SELECT feedback.label FROM feedback
                WHERE prediction_id = p.id ORDER BY feedback.id DESC LIMIT 1
            ) AS label_before
        FROM unnest(CAST(:ids AS uuid[]), CAST(:labels AS text[]), CAST(:times AS timestamptz[]))
            AS given (prediction_id, label, at)
        JOIN predictions AS p ON p.id = given.prediction_id
        LEFT JOIN review_items AS item ON item.prediction_id = p.id
    ) AS labelled
    WHERE label_before IS DISTINCT FROM label
),
added_to_predictions AS (
    INSERT INTO label_rollups AS known (
        bucket_seconds, bucket, model_version_id, confidence_bin, labelled, correct, confidence_sum,
        sampled, weight, weight_correct, weight_confidence, weight_squares
    )
    SELECT
        seconds, date_bin(make_interval(secs => seconds), created_at, TIMESTAMPTZ 'epoch'),
        model_version_id,
        least(floor(greatest(confidence::double precision, 0) * 50), 49)::smallint,
        count(*) FILTER (WHERE is_new AND is_ordinary),
        coalesce(sum(more_correct) FILTER (WHERE is_ordinary), 0),
        coalesce(sum(confidence::double precision) FILTER (WHERE is_new AND is_ordinary), 0),
        count(weight) FILTER (WHERE is_new),
        coalesce(sum(weight) FILTER (WHERE is_new), 0),
        coalesce(sum(weight * more_correct), 0),
        coalesce(sum(weight * confidence) FILTER (WHERE is_new), 0),
        coalesce(sum(weight * weight) FILTER (WHERE is_new), 0)
    FROM (
        SELECT *,
            label_before IS NULL AS is_new,
            (label = sentiment)::int - coalesce(label_before = sentiment, false)::int
                AS more_correct
        FROM changed
    ) AS counted CROSS JOIN (VALUES (60), (3600), (86400)) AS sizes (seconds)
    GROUP BY 1, 2, 3, 4
    ON CONFLICT ON CONSTRAINT pk_label_rollups DO UPDATE SET
        labelled = known.labelled + excluded.labelled,
        correct = known.correct + excluded.correct,
        confidence_sum = known.confidence_sum + excluded.confidence_sum,
        sampled = known.sampled + excluded.sampled,
        weight = known.weight + excluded.weight,
        weight_correct = known.weight_correct + excluded.weight_correct,
        weight_confidence = known.weight_confidence + excluded.weight_confidence,
        weight_squares = known.weight_squares + excluded.weight_squares
),
-- The label of a subject is that of its prediction which was labelled first.
subjects AS (
    SELECT DISTINCT ON (a.experiment_id, a.subject_key)
        a.*, changed.id AS prediction_id, changed.label = changed.sentiment AS correct_now
    FROM changed
    -- The hash of a prediction of an earlier release may not be keyed yet.
    JOIN assignments AS a
        ON a.experiment_id = changed.experiment_id
        AND a.subject_key IN (
            changed.subject_key, log_hash(changed.subject_key, 1::smallint)
        )
    WHERE counts_in_tests AND coalesce(a.labelled_prediction_id, changed.id) = changed.id
    ORDER BY a.experiment_id, a.subject_key, given_at
),
labelled_subjects AS (
    UPDATE assignments AS a
    SET labelled_prediction_id = subjects.prediction_id, correct = subjects.correct_now
    FROM subjects
    WHERE (a.experiment_id, a.subject_key) = (subjects.experiment_id, subjects.subject_key)
),
added_to_subjects AS (
    INSERT INTO assignment_rollups AS known
        (bucket_seconds, bucket, experiment_id, version, subjects, labelled, correct)
    SELECT
        seconds, date_bin(make_interval(secs => seconds), first_seen, TIMESTAMPTZ 'epoch'),
        experiment_id, version, 0,
        count(*) FILTER (WHERE labelled_prediction_id IS NULL),
        sum(correct_now::int - coalesce(correct, false)::int)
    FROM subjects CROSS JOIN (VALUES (60), (3600), (86400)) AS sizes (seconds)
    GROUP BY 1, 2, 3, 4
    ON CONFLICT ON CONSTRAINT pk_assignment_rollups DO UPDATE SET
        labelled = known.labelled + excluded.labelled,
        correct = known.correct + excluded.correct
),
-- The label of a text is the last that any of its comparisons was given.
texts AS (
    SELECT DISTINCT ON (text_key, v1_model_version_id, v2_model_version_id)
        t.text_key, t.v1_model_version_id, t.v2_model_version_id, t.first_compared,
        t.v1_sentiment, t.v2_sentiment, changed.label, t.label AS label_before
    FROM changed
    JOIN comparisons AS c
        ON counts_in_tests
        AND changed.endpoint IN ('/predict/ab-compare', '/predict', 'shadow')
        AND (c.v1_prediction_id = changed.id OR c.v2_prediction_id = changed.id)
    JOIN predictions AS v1 ON v1.id = c.v1_prediction_id
    JOIN predictions AS v2 ON v2.id = c.v2_prediction_id
    JOIN model_versions AS v1_model ON v1_model.id = v1.model_version_id
    JOIN model_versions AS v2_model ON v2_model.id = v2.model_version_id
    -- Earlier releases counted a text once for each pair of engines. A text that a shadow compared
    -- has the key of its test in the shadow's prediction, and may have a newer one in the other.
    JOIN compared_texts AS t
        ON t.text_key IN (
            v1.text_sha256, v2.text_sha256, uuid_send(c.id),
            log_hash(v1.text_sha256, 1::smallint), log_hash(v2.text_sha256, 1::smallint)
        )
        AND (t.v1_model_version_id, t.v2_model_version_id) IN (
            (v1.model_version_id, v2.model_version_id),
            (v1_model.weights_id, v2_model.weights_id)
        )
    ORDER BY text_key, v1_model_version_id, v2_model_version_id, given_at DESC
),
labelled_texts AS (
    UPDATE compared_texts AS t SET label = texts.label
    FROM texts
    WHERE (t.text_key, t.v1_model_version_id, t.v2_model_version_id)
        = (texts.text_key, texts.v1_model_version_id, texts.v2_model_version_id)
),
added_to_texts AS (
    INSERT INTO comparison_rollups AS known (
        bucket_seconds, bucket, v1_model_version_id, v2_model_version_id,
        v1_sentiment, v2_sentiment,
        texts, confidence_difference_sum, confidence_difference_squares,
        labelled_negative, labelled_neutral, labelled_positive
    )
    SELECT
        seconds, date_bin(make_interval(secs => seconds), first_compared, TIMESTAMPTZ 'epoch'),
        v1_model_version_id, v2_model_version_id, v1_sentiment, v2_sentiment,
        0, 0, 0,
        sum((label = 'negative')::int - coalesce(label_before = 'negative', false)::int),
        sum((label = 'neutral')::int - coalesce(label_before = 'neutral', false)::int),
        sum((label = 'positive')::int - coalesce(label_before = 'positive', false)::int)
    FROM texts CROSS JOIN (VALUES (60), (3600), (86400)) AS sizes (seconds)
    GROUP BY 1, 2, 3, 4, 5, 6
    ON CONFLICT ON CONSTRAINT pk_comparison_rollups DO UPDATE SET
        labelled_negative = known.labelled_negative + excluded.labelled_negative,
        labelled_neutral = known.labelled_neutral + excluded.labelled_neutral,
        labelled_positive = known.labelled_positive + excluded.labelled_positive
)
INSERT INTO feedback (prediction_id, label, created_at)
SELECT id, label, given_at FROM changed
