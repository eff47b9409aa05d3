-- Assigns the subjects of the staged predictions: each counts once in a test, with its first
-- prediction.
WITH new_subjects AS (
    INSERT INTO assignments (experiment_id, subject_key, version, first_seen, hash_key_id)
    SELECT DISTINCT ON (experiment_id, subject_key)
        experiment_id, subject_key, model_versions.version, created_at,
        coalesce(experiments.hash_key_id, 1)
    FROM predictions_staging
    JOIN model_versions ON model_versions.id = model_version_id
    JOIN experiments ON experiments.id = experiment_id
    WHERE experiment_id IS NOT NULL
    ORDER BY experiment_id, subject_key, predictions_staging.id
    ON CONFLICT DO NOTHING
    RETURNING *
)
INSERT INTO assignment_rollups AS known
    (bucket_seconds, bucket, experiment_id, version, subjects, labelled, correct)
SELECT
    seconds, date_bin(make_interval(secs => seconds), first_seen, TIMESTAMPTZ 'epoch'),
    experiment_id, version, count(*), 0, 0
FROM new_subjects CROSS JOIN (VALUES (60), (3600), (86400)) AS sizes (seconds)
GROUP BY 1, 2, 3, 4
ON CONFLICT ON CONSTRAINT pk_assignment_rollups DO UPDATE SET
    subjects = known.subjects + excluded.subjects
