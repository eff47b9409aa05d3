-- Stores true labels and counts them; the latest label of a prediction is the one that counts. The
-- label of a prediction that was compared is the label of both predictions. A label that equals the
-- one before, or whose prediction is unknown, changes nothing. All parts of the statement see the
-- tables as they were before it.
-- The label of a prediction that the review queue drew counts with its weight, apart from the others,
-- as soon as its block does (count_review_blocks.sql).
-- A test and the other prediction of a comparison get it only if it belongs to the uniformly random
-- part: nobody chose it for what it is. If the prediction had a label before it was drawn, its label
-- counts among the others too.
WITH given AS (
    SELECT
        given.*,
        coalesce(item.labelled_before OR item.is_random, true) AS counts_in_tests
    FROM
        unnest(CAST(:ids AS uuid[]), CAST(:labels AS text[]), CAST(:times AS timestamptz[]))
        WITH ORDINALITY AS given (prediction_id, label, at, place)
    LEFT JOIN review_items AS item USING (prediction_id)
),
labelled AS (
    SELECT DISTINCT ON (prediction_id) * FROM (
        SELECT prediction_id, label, at, place FROM given
        UNION ALL
        SELECT v2_prediction_id, label, at, place
        FROM given JOIN comparisons ON v1_prediction_id = prediction_id
        WHERE counts_in_tests
        UNION ALL
        SELECT v1_prediction_id, label, at, place
        FROM given JOIN comparisons ON v2_prediction_id = prediction_id
        WHERE counts_in_tests
    ) AS with_other
    ORDER BY prediction_id, at DESC, place DESC
),
changed AS (
    SELECT * FROM (
        SELECT
            p.id, p.created_at, p.model_version_id, p.sentiment, p.confidence,
            p.experiment_id, p.subject_key, labelled.label, labelled.at AS given_at,
            CASE WHEN item.counts THEN 1 / item.probability END AS weight,
            coalesce(item.labelled_before, true) AS is_ordinary,
            coalesce(item.labelled_before OR item.is_random, true) AS counts_in_tests,
            (
                SELECT feedback.label FROM feedback
                WHERE prediction_id = p.id ORDER BY feedback.id DESC LIMIT 1
            ) AS label_before
        FROM labelled
        JOIN predictions AS p ON p.id = labelled.prediction_id
        LEFT JOIN review_items AS item ON item.prediction_id = p.id
    ) AS known
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
-- Only the sums of buckets that retention has not dropped are there.
added_to_subjects AS (
    UPDATE assignment_rollups AS known
    SET labelled = known.labelled + added.labelled, correct = known.correct + added.correct
    FROM (
        SELECT
            seconds,
            date_bin(make_interval(secs => seconds), first_seen, TIMESTAMPTZ 'epoch') AS bucket,
            experiment_id, version,
            count(*) FILTER (WHERE labelled_prediction_id IS NULL) AS labelled,
            sum(correct_now::int - coalesce(correct, false)::int) AS correct
        FROM subjects CROSS JOIN (VALUES (60), (3600), (86400)) AS sizes (seconds)
        GROUP BY 1, 2, 3, 4
    ) AS added
    WHERE (known.bucket_seconds, known.bucket, known.experiment_id, known.version)
        = (added.seconds, added.bucket, added.experiment_id, added.version)
),
-- The label of a text is the last that any prediction of it was given, in any of its comparisons.
texts AS (
    SELECT DISTINCT ON (text_key, v1_model_version_id, v2_model_version_id)
        t.text_key, t.v1_model_version_id, t.v2_model_version_id, t.first_compared,
        t.v1_sentiment, t.v2_sentiment, t.subject_key, t.is_repeat,
        given.label, given.prediction_id, given.at AS given_at, t.label AS label_before
    FROM given
    JOIN comparisons AS c
        ON c.v1_prediction_id = given.prediction_id OR c.v2_prediction_id = given.prediction_id
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
    WHERE given.counts_in_tests
    ORDER BY text_key, v1_model_version_id, v2_model_version_id, at DESC, place DESC
),
-- Of a subject's texts the one that was labelled first counts.
changed_texts AS (
    SELECT
        texts.text_key, texts.v1_model_version_id, texts.v2_model_version_id,
        texts.first_compared, texts.v1_sentiment, texts.v2_sentiment, texts.subject_key,
        texts.label, texts.label_before, texts.prediction_id, texts.given_at,
        CASE
            WHEN texts.label_before IS NOT NULL THEN texts.is_repeat
            WHEN texts.subject_key IS NULL THEN false
            ELSE coalesce(s.is_labelled, false) OR row_number() OVER (
                PARTITION BY
                    texts.subject_key, texts.v1_model_version_id, texts.v2_model_version_id,
                    texts.label_before IS NULL
                ORDER BY texts.given_at, texts.text_key
            ) > 1
        END AS is_repeat
    FROM texts
    LEFT JOIN compared_subjects AS s
        ON (s.subject_key, s.v1_model_version_id, s.v2_model_version_id)
            = (texts.subject_key, texts.v1_model_version_id, texts.v2_model_version_id)
    WHERE texts.label_before IS DISTINCT FROM texts.label
),
labelled_texts AS (
    UPDATE compared_texts AS t SET label = new.label, is_repeat = new.is_repeat
    FROM changed_texts AS new
    WHERE (t.text_key, t.v1_model_version_id, t.v2_model_version_id)
        = (new.text_key, new.v1_model_version_id, new.v2_model_version_id)
),
labelled_subjects_of_texts AS (
    UPDATE compared_subjects AS s SET is_labelled = true
    FROM changed_texts AS new
    WHERE (s.subject_key, s.v1_model_version_id, s.v2_model_version_id)
        = (new.subject_key, new.v1_model_version_id, new.v2_model_version_id)
        AND NOT s.is_labelled AND NOT new.is_repeat
),
added_to_texts AS (
    UPDATE comparison_rollups AS known SET
        labelled_negative = known.labelled_negative + added.negative,
        labelled_neutral = known.labelled_neutral + added.neutral,
        labelled_positive = known.labelled_positive + added.positive,
        labelled_repeats = known.labelled_repeats + added.repeats
    FROM (
        SELECT
            seconds,
            date_bin(make_interval(secs => seconds), first_compared, TIMESTAMPTZ 'epoch') AS bucket,
            v1_model_version_id, v2_model_version_id, v1_sentiment, v2_sentiment,
            coalesce(sum(
                (label = 'negative')::int - coalesce(label_before = 'negative', false)::int
            ) FILTER (WHERE NOT is_repeat), 0) AS negative,
            coalesce(sum(
                (label = 'neutral')::int - coalesce(label_before = 'neutral', false)::int
            ) FILTER (WHERE NOT is_repeat), 0) AS neutral,
            coalesce(sum(
                (label = 'positive')::int - coalesce(label_before = 'positive', false)::int
            ) FILTER (WHERE NOT is_repeat), 0) AS positive,
            count(*) FILTER (WHERE is_repeat AND label_before IS NULL) AS repeats
        FROM changed_texts CROSS JOIN (VALUES (60), (3600), (86400)) AS sizes (seconds)
        GROUP BY 1, 2, 3, 4, 5, 6
    ) AS added
    WHERE (
        known.bucket_seconds, known.bucket, known.v1_model_version_id, known.v2_model_version_id,
        known.v1_sentiment, known.v2_sentiment
    ) = (
        added.seconds, added.bucket, added.v1_model_version_id, added.v2_model_version_id,
        added.v1_sentiment, added.v2_sentiment
    )
)
INSERT INTO feedback (prediction_id, label, created_at)
SELECT id, label, given_at FROM changed
UNION
SELECT prediction_id, label, given_at FROM changed_texts
