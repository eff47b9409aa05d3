-- Keys the assignments of an earlier release whose subjects are given, as key_compared_texts.sql does.
UPDATE assignments AS plain
SET subject_key = log_hash(plain.subject_key, 1::smallint), hash_key_id = 1
FROM (
    SELECT DISTINCT * FROM unnest(CAST(:experiments AS smallint[]), CAST(:subjects AS bytea[]))
        AS subjects (experiment_id, subject_key)
) AS given
WHERE plain.hash_key_id IS NULL
    AND (plain.experiment_id, plain.subject_key) = (given.experiment_id, given.subject_key)
    AND NOT EXISTS (
        SELECT FROM assignments AS keyed
        WHERE (keyed.experiment_id, keyed.subject_key)
            = (plain.experiment_id, log_hash(plain.subject_key, 1::smallint))
    )
