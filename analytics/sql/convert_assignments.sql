-- Keys a batch of rows of earlier releases (hash_conversion.py). Other keys have 16 bytes: they are ids
-- of comparisons without a hash.
UPDATE assignments AS plain
SET subject_key = log_hash(plain.subject_key, 1::smallint), hash_key_id = 1
FROM (
    SELECT subject_key, experiment_id FROM assignments
    WHERE hash_key_id IS NULL AND octet_length(subject_key) = 32
    LIMIT :rows
) AS batch
WHERE (plain.subject_key, plain.experiment_id)
    = (batch.subject_key, batch.experiment_id)
