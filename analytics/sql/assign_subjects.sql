-- Assigns the subjects of the staged predictions: each counts once in a test, with its first
-- prediction. A subject that comes again notes the day, by which it expires.
WITH seen_subjects AS (
    INSERT INTO assignments AS known
        (experiment_id, subject_key, version, first_seen, hash_key_id, last_seen)
    SELECT DISTINCT ON (experiment_id, subject_key)
        experiment_id, subject_key, model_versions.version, created_at,
        coalesce(experiments.hash_key_id, 1),
        max(created_at) OVER (PARTITION BY experiment_id, subject_key)
    FROM predictions_staging
    JOIN model_versions ON model_versions.id = model_version_id
    JOIN experiments ON experiments.id = experiment_id
    WHERE experiment_id IS NOT NULL
    ORDER BY experiment_id, subject_key, predictions_staging.id
    ON CONFLICT ON CONSTRAINT pk_assignments DO UPDATE SET last_seen = excluded.last_seen
        WHERE date_bin('1 day', excluded.last_seen, TIMESTAMPTZ 'epoch')
            > date_bin('1 day', coalesce(known.last_seen, known.first_seen), TIMESTAMPTZ 'epoch')
    -- A row that was there already has the transaction that changed it.
    RETURNING *, xmax = 0 AS is_new
)
INSERT INTO assignment_rollups AS known
    (bucket_seconds, bucket, experiment_id, version, subjects, labelled, correct)
SELECT
    seconds, date_bin(make_interval(secs => seconds), first_seen, TIMESTAMPTZ 'epoch'),
    experiment_id, version, count(*), 0, 0
FROM seen_subjects CROSS JOIN (VALUES (60), (3600), (86400)) AS sizes (seconds)
WHERE is_new
GROUP BY 1, 2, 3, 4
ON CONFLICT ON CONSTRAINT pk_assignment_rollups DO UPDATE SET
    subjects = known.subjects + excluded.subjects
