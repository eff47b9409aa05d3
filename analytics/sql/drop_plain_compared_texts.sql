-- Deletes the rows of a batch whose keyed row is there too (hash_conversion.py).
DELETE FROM compared_texts AS plain
USING compared_texts AS keyed, (
    SELECT text_key, v1_model_version_id, v2_model_version_id FROM compared_texts
    WHERE hash_key_id IS NULL AND octet_length(text_key) = 32
    LIMIT :rows
) AS batch
WHERE (plain.text_key, plain.v1_model_version_id, plain.v2_model_version_id)
        = (batch.text_key, batch.v1_model_version_id, batch.v2_model_version_id)
    AND (keyed.text_key, keyed.v1_model_version_id, keyed.v2_model_version_id)
        = (log_hash(plain.text_key, 1::smallint), plain.v1_model_version_id, plain.v2_model_version_id)
