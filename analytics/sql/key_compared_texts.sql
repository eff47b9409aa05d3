-- Keys the compared texts of an earlier release whose SHA-256 is given. A batch does so before it is
-- stored, because the background has perhaps not come to them yet (hash_conversion.py).
UPDATE compared_texts AS plain
SET text_key = log_hash(plain.text_key, 1::smallint), hash_key_id = 1
WHERE plain.hash_key_id IS NULL
    AND plain.text_key = ANY(CAST(:digests AS bytea[]))
    AND NOT EXISTS (
        SELECT FROM compared_texts AS keyed
        WHERE (keyed.text_key, keyed.v1_model_version_id, keyed.v2_model_version_id)
            = (
                log_hash(plain.text_key, 1::smallint),
                plain.v1_model_version_id, plain.v2_model_version_id
            )
    )
