-- Inserts the staged failures and adds them to their rollups.
WITH inserted AS (
    INSERT INTO failures SELECT * FROM failures_staging
    ON CONFLICT DO NOTHING
    RETURNING created_at, model_version_id, texts
)
INSERT INTO failure_rollups AS known (bucket_seconds, bucket, model_version_id, texts)
SELECT
    seconds, date_bin(make_interval(secs => seconds), created_at, TIMESTAMPTZ 'epoch'),
    model_version_id, sum(texts)
FROM inserted CROSS JOIN (VALUES (60), (3600), (86400)) AS sizes (seconds)
GROUP BY 1, 2, 3
ON CONFLICT ON CONSTRAINT pk_failure_rollups DO UPDATE SET texts = known.texts + excluded.texts
