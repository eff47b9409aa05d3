-- Deletes the rows of a batch whose keyed row is there too (hash_conversion.py).
DELETE FROM assignments AS plain
USING assignments AS keyed, (
    SELECT subject_key, experiment_id FROM assignments
    WHERE hash_key_id IS NULL AND octet_length(subject_key) = 32
    LIMIT :rows
) AS batch
WHERE (plain.subject_key, plain.experiment_id)
        = (batch.subject_key, batch.experiment_id)
    AND (keyed.subject_key, keyed.experiment_id)
        = (log_hash(plain.subject_key, 1::smallint), plain.experiment_id)
