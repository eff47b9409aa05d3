-- The ids that this very transaction has inserted, of those that it was given: the others were there
-- already. The range lets PostgreSQL pass over the partitions of other days.
SELECT id FROM predictions
WHERE id = ANY(:ids) AND id BETWEEN :first AND :last AND xmin = pg_current_xact_id()::xid
ORDER BY id
