-- Inserts the staged predictions and adds them to the rollups, in one statement: the rollups count
-- the rows that the insert returns, so a row that was there already is not counted again.
WITH inserted AS (
    INSERT INTO predictions SELECT * FROM predictions_staging
    ON CONFLICT (id) DO NOTHING
    RETURNING
        date_bin('60 s', created_at, TIMESTAMPTZ 'epoch') AS bucket,
        model_version_id,
        endpoint,
        endpoint = '/predict/ab' AS routed,
        arm_group,
        cache_hit,
        sentiment,
        truncated,
        confidence,
        latency_ms,
        -- stats/entropy.py and stats/histogram.py define these expressions; a test compares them.
        abs(coalesce(score_negative, 0)::double precision
            * ln(greatest(coalesce(score_negative, 0)::double precision, 1e-300))
            + coalesce(score_neutral, 0)::double precision
            * ln(greatest(coalesce(score_neutral, 0)::double precision, 1e-300))
            + coalesce(score_positive, 0)::double precision
            * ln(greatest(coalesce(score_positive, 0)::double precision, 1e-300)))
            / 0.6931471805599453 AS entropy,
        ceil(ln(least(greatest(latency_ms::double precision, 0.01), 3600000.0))
            / 0.020000666706669525)::smallint AS latency_ms_bin,
        least(floor(greatest(confidence::double precision, 0) * 50), 49)::smallint
            AS confidence_bin,
        ceil(ln(least(greatest(text_characters::double precision, 1.0), 1000000.0))
            / 0.20067069546215116)::smallint AS text_characters_bin,
        ceil(ln(least(greatest(token_count::double precision, 1.0), 1000000.0))
            / 0.20067069546215116)::smallint AS token_count_bin,
        -- Of the arms: analytics/arms.py defines it.
        ceil(ln(least(greatest(
            (latency_ms::double precision * 32 / greatest(token_count, 32))::double precision,
            0.01), 3600000.0))
            / 0.020000666706669525)::smallint AS compared_latency_bin
),
-- Counts and sums by minute, of those by hour, and of those by day.
counted_60 AS (
    SELECT
        60 AS seconds, bucket, model_version_id, routed, cache_hit,
        count(*) FILTER (WHERE sentiment = 'negative') AS negative,
        count(*) FILTER (WHERE sentiment = 'neutral') AS neutral,
        count(*) FILTER (WHERE sentiment = 'positive') AS positive,
        count(*) FILTER (WHERE truncated) AS truncated,
        sum(confidence::double precision) AS confidence_sum,
        sum(latency_ms::double precision) AS latency_ms_sum,
        sum(entropy) AS entropy_sum
    FROM inserted
    GROUP BY bucket, model_version_id, routed, cache_hit
),
counted_3600 AS (
    SELECT
        3600 AS seconds, date_bin('3600 s', bucket, TIMESTAMPTZ 'epoch') AS bucket,
        model_version_id, routed, cache_hit,
        sum(negative) AS negative, sum(neutral) AS neutral, sum(positive) AS positive,
        sum(truncated) AS truncated, sum(confidence_sum) AS confidence_sum,
        sum(latency_ms_sum) AS latency_ms_sum, sum(entropy_sum) AS entropy_sum
    FROM counted_60
    GROUP BY date_bin('3600 s', bucket, TIMESTAMPTZ 'epoch'), model_version_id, routed, cache_hit
),
counted_86400 AS (
    SELECT
        86400 AS seconds, date_bin('86400 s', bucket, TIMESTAMPTZ 'epoch') AS bucket,
        model_version_id, routed, cache_hit,
        sum(negative) AS negative, sum(neutral) AS neutral, sum(positive) AS positive,
        sum(truncated) AS truncated, sum(confidence_sum) AS confidence_sum,
        sum(latency_ms_sum) AS latency_ms_sum, sum(entropy_sum) AS entropy_sum
    FROM counted_3600
    GROUP BY date_bin('86400 s', bucket, TIMESTAMPTZ 'epoch'), model_version_id, routed, cache_hit
),
counted AS (
    SELECT * FROM counted_60
    UNION ALL SELECT * FROM counted_3600
    UNION ALL SELECT * FROM counted_86400
),
-- How many predictions each bin of a measure holds, in the same three sizes.
binned_60 AS (
    SELECT
        60 AS seconds, bucket, model_version_id, routed, cache_hit, measure, bin,
        count(*) AS predictions
    FROM inserted CROSS JOIN LATERAL (VALUES
        (0, latency_ms_bin), (1, confidence_bin), (2, text_characters_bin), (3, token_count_bin)
    ) AS measured (measure, bin)
    GROUP BY bucket, model_version_id, routed, cache_hit, measure, bin
),
binned_3600 AS (
    SELECT
        3600 AS seconds, date_bin('3600 s', bucket, TIMESTAMPTZ 'epoch') AS bucket,
        model_version_id, routed, cache_hit, measure, bin,
        sum(predictions)::bigint AS predictions
    FROM binned_60
    GROUP BY date_bin('3600 s', bucket, TIMESTAMPTZ 'epoch'),
        model_version_id, routed, cache_hit, measure, bin
),
binned_86400 AS (
    SELECT
        86400 AS seconds, date_bin('86400 s', bucket, TIMESTAMPTZ 'epoch') AS bucket,
        model_version_id, routed, cache_hit, measure, bin,
        sum(predictions)::bigint AS predictions
    FROM binned_3600
    GROUP BY date_bin('86400 s', bucket, TIMESTAMPTZ 'epoch'),
        model_version_id, routed, cache_hit, measure, bin
),
binned AS (
    SELECT * FROM binned_60
    UNION ALL SELECT * FROM binned_3600
    UNION ALL SELECT * FROM binned_86400
),
histograms AS (
    SELECT
        seconds, bucket, model_version_id, routed, cache_hit,
        array_agg(bin ORDER BY bin) FILTER (WHERE measure = 0) AS latency_ms_bins,
        array_agg(predictions ORDER BY bin) FILTER (WHERE measure = 0) AS latency_ms_counts,
        array_agg(bin ORDER BY bin) FILTER (WHERE measure = 1) AS confidence_bins,
        array_agg(predictions ORDER BY bin) FILTER (WHERE measure = 1) AS confidence_counts,
        array_agg(bin ORDER BY bin) FILTER (WHERE measure = 2) AS text_characters_bins,
        array_agg(predictions ORDER BY bin) FILTER (WHERE measure = 2) AS text_characters_counts,
        array_agg(bin ORDER BY bin) FILTER (WHERE measure = 3) AS token_count_bins,
        array_agg(predictions ORDER BY bin) FILTER (WHERE measure = 3) AS token_count_counts
    FROM binned
    GROUP BY seconds, bucket, model_version_id, routed, cache_hit
),
-- The texts that either version might have answered, by route, group and outcome or latency
-- (analytics/arms.py defines the bins; a test compares them).
arm_minutes AS (
    SELECT bucket, model_version_id, endpoint, measure, bin, count(*) AS predictions
    FROM inserted CROSS JOIN LATERAL (VALUES
        (0, (arm_group * 4 + CASE sentiment
            WHEN 'negative' THEN 0 WHEN 'neutral' THEN 1 ELSE 2 END)::smallint),
        (1, CASE WHEN NOT cache_hit THEN (arm_group * 1000 + compared_latency_bin + 231)::smallint END)
    ) AS measured (measure, bin)
    WHERE bin IS NOT NULL
    GROUP BY bucket, model_version_id, endpoint, measure, bin
),
arm_bins AS (
    SELECT
        seconds, date_bin(make_interval(secs => seconds), bucket, TIMESTAMPTZ 'epoch') AS bucket,
        model_version_id, endpoint, measure, bin, sum(predictions)::bigint AS predictions
    FROM arm_minutes CROSS JOIN (VALUES (60), (3600), (86400)) AS sizes (seconds)
    GROUP BY 1, 2, 3, 4, 5, 6
),
arms AS (
    INSERT INTO arm_rollups AS known (
        bucket_seconds, bucket, model_version_id, endpoint,
        outcome_bins, outcome_counts, latency_ms_bins, latency_ms_counts
    )
    SELECT
        seconds, bucket, model_version_id, endpoint,
        array_agg(bin ORDER BY bin) FILTER (WHERE measure = 0),
        array_agg(predictions ORDER BY bin) FILTER (WHERE measure = 0),
        coalesce(array_agg(bin ORDER BY bin) FILTER (WHERE measure = 1), '{}'),
        coalesce(array_agg(predictions ORDER BY bin) FILTER (WHERE measure = 1), '{}')
    FROM arm_bins
    GROUP BY seconds, bucket, model_version_id, endpoint
    ON CONFLICT ON CONSTRAINT pk_arm_rollups DO UPDATE SET
        (outcome_bins, outcome_counts) = (
            SELECT coalesce(array_agg(bin ORDER BY bin), '{}'),
                coalesce(array_agg(predictions ORDER BY bin), '{}')
            FROM (
                SELECT bin, sum(predictions)::bigint AS predictions FROM (
                    SELECT * FROM unnest(known.outcome_bins, known.outcome_counts)
                    UNION ALL SELECT * FROM unnest(excluded.outcome_bins, excluded.outcome_counts)
                ) AS both_histograms (bin, predictions) GROUP BY bin
            ) AS merged
        ),
        (latency_ms_bins, latency_ms_counts) = (
            SELECT coalesce(array_agg(bin ORDER BY bin), '{}'),
                coalesce(array_agg(predictions ORDER BY bin), '{}')
            FROM (
                SELECT bin, sum(predictions)::bigint AS predictions FROM (
                    SELECT * FROM unnest(known.latency_ms_bins, known.latency_ms_counts)
                    UNION ALL SELECT * FROM unnest(excluded.latency_ms_bins, excluded.latency_ms_counts)
                ) AS both_histograms (bin, predictions) GROUP BY bin
            ) AS merged
        )
)
INSERT INTO rollups AS known (
    bucket_seconds, bucket, model_version_id, routed, cache_hit,
    negative, neutral, positive, truncated, confidence_sum, latency_ms_sum, entropy_sum,
    latency_ms_bins, latency_ms_counts, confidence_bins, confidence_counts,
    text_characters_bins, text_characters_counts, token_count_bins, token_count_counts
)
SELECT
    seconds, bucket, model_version_id, routed, cache_hit,
    negative, neutral, positive, truncated, confidence_sum, latency_ms_sum, entropy_sum,
    latency_ms_bins, latency_ms_counts, confidence_bins, confidence_counts,
    text_characters_bins, text_characters_counts, token_count_bins, token_count_counts
FROM counted JOIN histograms USING (seconds, bucket, model_version_id, routed, cache_hit)
ON CONFLICT ON CONSTRAINT pk_rollups DO UPDATE SET
    negative = known.negative + excluded.negative,
    neutral = known.neutral + excluded.neutral,
    positive = known.positive + excluded.positive,
    truncated = known.truncated + excluded.truncated,
    confidence_sum = known.confidence_sum + excluded.confidence_sum,
    latency_ms_sum = known.latency_ms_sum + excluded.latency_ms_sum,
    entropy_sum = known.entropy_sum + excluded.entropy_sum,
    (latency_ms_bins, latency_ms_counts) = (
        SELECT array_agg(bin ORDER BY bin), array_agg(predictions ORDER BY bin) FROM (
            SELECT bin, sum(predictions)::bigint AS predictions FROM (
                SELECT * FROM unnest(known.latency_ms_bins, known.latency_ms_counts)
                UNION ALL SELECT * FROM unnest(excluded.latency_ms_bins, excluded.latency_ms_counts)
            ) AS both_histograms (bin, predictions) GROUP BY bin
        ) AS merged
    ),
    (confidence_bins, confidence_counts) = (
        SELECT array_agg(bin ORDER BY bin), array_agg(predictions ORDER BY bin) FROM (
            SELECT bin, sum(predictions)::bigint AS predictions FROM (
                SELECT * FROM unnest(known.confidence_bins, known.confidence_counts)
                UNION ALL SELECT * FROM unnest(excluded.confidence_bins, excluded.confidence_counts)
            ) AS both_histograms (bin, predictions) GROUP BY bin
        ) AS merged
    ),
    (text_characters_bins, text_characters_counts) = (
        SELECT array_agg(bin ORDER BY bin), array_agg(predictions ORDER BY bin) FROM (
            SELECT bin, sum(predictions)::bigint AS predictions FROM (
                SELECT * FROM unnest(known.text_characters_bins, known.text_characters_counts)
                UNION ALL
                SELECT * FROM unnest(excluded.text_characters_bins, excluded.text_characters_counts)
            ) AS both_histograms (bin, predictions) GROUP BY bin
        ) AS merged
    ),
    (token_count_bins, token_count_counts) = (
        SELECT array_agg(bin ORDER BY bin), array_agg(predictions ORDER BY bin) FROM (
            SELECT bin, sum(predictions)::bigint AS predictions FROM (
                SELECT * FROM unnest(known.token_count_bins, known.token_count_counts)
                UNION ALL
                SELECT * FROM unnest(excluded.token_count_bins, excluded.token_count_counts)
            ) AS both_histograms (bin, predictions) GROUP BY bin
        ) AS merged
    )
-- Of each changed row the same: the predictions that were not there.
RETURNING (SELECT count(*) FROM inserted)
