-- name: installation
-- Which outbox this is.
SELECT i.version, i.name FROM pushfan.outbox_installation i

-- name: apps
-- Apps that have rows, found by jumps along the primary key.
WITH RECURSIVE found AS (
    (SELECT o.app FROM pushfan.outbox o ORDER BY o.app LIMIT 1)
    UNION ALL
    SELECT (SELECT o.app FROM pushfan.outbox o WHERE o.app > found.app ORDER BY o.app LIMIT 1)
    FROM found WHERE found.app IS NOT NULL
)
SELECT app FROM found WHERE app IS NOT NULL AND (cardinality(%(apps)s::text[]) = 0 OR app = ANY (%(apps)s::text[]))

-- name: reserve
-- One relay moves the rows of an app, so that they stay in order. A statement of its own: the next one must see what
-- another relay deleted before it let go. The transaction is idle while the rows are taken in elsewhere.
SELECT pg_try_advisory_xact_lock(hashtext('pushfan.relay'), hashtext(%(app)s)) AS is_mine,
       set_config('idle_in_transaction_session_timeout', '30s', true)

-- name: read
-- An app's oldest rows, up to a number and to about a number of bytes, but one at least.
SELECT o.id, o.event::text AS event
FROM (
    SELECT o.id, o.event, row_number() OVER w AS place, sum(octet_length(o.event::text)) OVER w AS bytes
    FROM (SELECT o.id, o.event FROM pushfan.outbox o WHERE o.app = %(app)s ORDER BY o.id LIMIT %(limit)s) AS o
    WINDOW w AS (ORDER BY o.id ROWS UNBOUNDED PRECEDING)
) AS o
WHERE o.place = 1 OR o.bytes <= %(bytes)s
ORDER BY o.id

-- name: remove
-- What was taken in.
DELETE FROM pushfan.outbox o WHERE o.app = %(app)s AND o.id = ANY (%(ids)s)

-- name: beat
-- A relay says that it runs, and until when it waits to be told of new rows.
INSERT INTO pushfan.outbox_relay AS r (name, apps, moved, trouble, waiting_until)
VALUES (%(name)s, %(apps)s, %(moved)s, %(trouble)s, now() + %(waits)s)
ON CONFLICT (name) DO UPDATE
SET seen_at = now(), moved = excluded.moved, trouble = excluded.trouble, waiting_until = excluded.waiting_until

-- name: leave
-- A relay ends; those that have been silent for an hour have ended too.
DELETE FROM pushfan.outbox_relay r WHERE r.name = %(name)s OR r.seen_at < now() - interval '1 hour'

-- name: listen
-- Hear of new rows.
LISTEN pushfan_outbox

-- name: lag
-- What waits, by app.
SELECT o.app, count(*)::bigint AS rows,
       greatest(extract(epoch FROM clock_timestamp() - min(o.written_at)), 0)::double precision AS oldest_seconds
FROM pushfan.outbox o
WHERE cardinality(%(apps)s::text[]) = 0 OR o.app = ANY (%(apps)s::text[])
GROUP BY o.app
ORDER BY o.app

-- name: relays
-- Who moves the rows, as heard of lately.
SELECT r.name, r.apps, r.started_at, r.seen_at, r.moved, r.trouble, r.waiting_until > now() AS is_waiting
FROM pushfan.outbox_relay r
WHERE r.seen_at > now() - %(within)s
ORDER BY r.name

-- name: watched
-- The tables whose writes are bucket writes.
SELECT w.relation::text AS table, w.app, w.bucket, w.scope, w.scope_column
FROM pushfan.watched w JOIN pg_class c ON c.oid = w.relation
ORDER BY 1

-- name: serialize_install
-- Two processes that install at once take turns.
SELECT pg_advisory_xact_lock(hashtext('pushfan.outbox'))

-- name: quiet
-- "already exists, skipping" is not news.
SET LOCAL client_min_messages = warning
