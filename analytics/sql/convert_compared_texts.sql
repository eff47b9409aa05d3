-- Keys a batch of rows of earlier releases (hash_conversion.py). Other keys have 16 bytes: they are ids
-- of comparisons without a hash.
UPDATE compared_texts AS plain
SET text_key = log_hash(plain.text_key, 1::smallint), hash_key_id = 1
FROM (
    SELECT text_key, v1_model_version_id, v2_model_version_id FROM compared_texts
    WHERE hash_key_id IS NULL AND octet_length(text_key) = 32
    LIMIT :rows
) AS batch
WHERE (plain.text_key, plain.v1_model_version_id, plain.v2_model_version_id)
    = (batch.text_key, batch.v1_model_version_id, batch.v2_model_version_id)
