-- Predictions as a sink hands them on: with the names of their model and of their A/B test. A hash
-- without a key, of an earlier release, is not handed on.
SELECT
    p.id::text AS id, p.created_at, p.endpoint,
    m.version AS model_version, m.revision AS model_revision, m.engine,
    p.sentiment, p.confidence, p.score_negative, p.score_neutral, p.score_positive,
    p.latency_ms, p.cache_hit, p.truncated, p.windows, p.token_count, p.text_characters,
    p.text,
    CASE WHEN p.hash_key_id IS NOT NULL THEN encode(p.text_sha256, 'hex') END AS text_hash,
    CASE WHEN p.hash_key_id IS NOT NULL THEN encode(p.subject_key, 'hex') END AS subject_hash,
    p.hash_key_id, e.salt AS ab_salt, e.v2_percent AS ab_v2_percent,
    (
        SELECT c.id::text FROM comparisons AS c
        WHERE p.endpoint = '/predict/ab-compare'
            AND (c.v1_prediction_id = p.id OR c.v2_prediction_id = p.id)
    ) AS comparison_id
FROM predictions AS p
JOIN model_versions AS m ON m.id = p.model_version_id
LEFT JOIN experiments AS e ON e.id = p.experiment_id
WHERE p.id = ANY(:ids) AND p.id BETWEEN :first AND :last
ORDER BY p.id
