-- Inserts the staged failures and adds them to their rollups.
WITH inserted AS (
    INSERT INTO failures SELECT * FROM failures_staging
    ON CONFLICT (id) DO NOTHING
    RETURNING created_at, model_version_id, endpoint, texts, arm_group
),
-- A failure is an outcome of its group (analytics/arms.py).
arm_bins AS (
    SELECT
        seconds,
        date_bin(make_interval(secs => seconds), created_at, TIMESTAMPTZ 'epoch') AS bucket,
        model_version_id, endpoint, (arm_group * 4 + 3)::smallint AS bin, sum(texts) AS texts
    FROM inserted CROSS JOIN (VALUES (60), (3600), (86400)) AS sizes (seconds)
    WHERE arm_group IS NOT NULL
    GROUP BY 1, 2, 3, 4, 5
),
arms AS (
    INSERT INTO arm_rollups AS known (
        bucket_seconds, bucket, model_version_id, endpoint,
        outcome_bins, outcome_counts, latency_ms_bins, latency_ms_counts
    )
    SELECT
        seconds, bucket, model_version_id, endpoint,
        array_agg(bin ORDER BY bin), array_agg(texts ORDER BY bin), '{}', '{}'
    FROM arm_bins
    GROUP BY seconds, bucket, model_version_id, endpoint
    ON CONFLICT ON CONSTRAINT pk_arm_rollups DO UPDATE SET
        (outcome_bins, outcome_counts) = (
            SELECT array_agg(bin ORDER BY bin), array_agg(texts ORDER BY bin) FROM (
                SELECT bin, sum(texts)::bigint AS texts FROM (
                    SELECT * FROM unnest(known.outcome_bins, known.outcome_counts)
                    UNION ALL SELECT * FROM unnest(excluded.outcome_bins, excluded.outcome_counts)
                ) AS both_histograms (bin, texts) GROUP BY bin
            ) AS merged
        )
)
INSERT INTO failure_rollups AS known (bucket_seconds, bucket, model_version_id, texts)
SELECT
    seconds, date_bin(make_interval(secs => seconds), created_at, TIMESTAMPTZ 'epoch'),
    model_version_id, sum(texts)
FROM inserted CROSS JOIN (VALUES (60), (3600), (86400)) AS sizes (seconds)
GROUP BY 1, 2, 3
ON CONFLICT ON CONSTRAINT pk_failure_rollups DO UPDATE SET texts = known.texts + excluded.texts
