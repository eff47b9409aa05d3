-- How each transaction ended: 'committed', 'aborted' or 'in progress'; NULL if that is not known any
-- more, or if it is of another server, as after a restore. Every transaction of this server is older
-- than the one that asks.
SELECT number, CASE WHEN number::text::xid8 < pg_current_xact_id()
    THEN pg_xact_status(number::text::xid8) END AS outcome
FROM unnest(CAST(:numbers AS bigint[])) AS number
