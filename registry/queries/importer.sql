-- name: current_transaction
-- What this transaction is called, for whoever must know later whether it was committed.
SELECT pg_current_xact_id()::text AS xid

-- name: transaction_status
-- What became of a transaction: committed, aborted, in progress, or null if it is too old to be known.
SELECT pg_xact_status(%(xid)s::xid8) AS status

-- name: identity
-- Which database this is.
SELECT current_database() || ' of ' || min(v.applied_at)::text AS identity FROM pushfan.schema_version v
