-- The number of this transaction, by which PostgreSQL knows later whether it was committed.
SELECT pg_current_xact_id()::text
