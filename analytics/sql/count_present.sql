-- How many of these predictions are stored, by whichever transaction. The range lets PostgreSQL pass
-- over the partitions of other days.
SELECT count(*) FROM predictions WHERE id = ANY(:ids) AND id BETWEEN :first AND :last
