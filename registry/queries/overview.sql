-- name: leases
-- What is being sent now, and by whom; `unrecorded` are the positions that a kill would leave in doubt.
SELECT k.id AS chunk_id, k.channel_id, k.lane, k.notification_ids[1] AS notification_id, k.owner, k.fence,
       cardinality(k.device_ids) AS positions, k.issued,
       (SELECT count(*) FROM generate_series(0, k.issued - 1) AS p (position)
        WHERE get_byte(k.result, p.position) = 0)::integer AS unrecorded
FROM pushfan.chunk k
WHERE k.published_at IS NOT NULL AND k.lease_until > clock_timestamp()
ORDER BY k.id

-- name: announced
-- Chunks whose message is on its way, or lost: nobody holds them.
SELECT k.id AS chunk_id, k.fence
FROM pushfan.chunk k
WHERE k.published_at IS NOT NULL AND k.ready_at > clock_timestamp()
  AND (k.lease_until IS NULL OR k.lease_until < clock_timestamp())
ORDER BY k.id

-- name: outcomes
-- How the deliveries of each channel ended, since it was made: counted when a chunk is done.
SELECT c.id AS channel_id, c.outcomes FROM pushfan.channel c ORDER BY c.id

-- name: backlog
-- For each channel and lane: open positions, those of them under a lease, and deliveries that wait for another try.
-- A vector's length is read from its header, without fetching it. Retries are counted up to a limit for a channel:
-- after a long outage there may be millions. Their order keeps this to the index: without it, the whole table was
-- read for each channel.
WITH open AS (
    SELECT k.channel_id, k.lane, count(*) AS chunks, sum(octet_length(k.result)) AS positions,
           count(*) FILTER (WHERE k.lease_until > now()) AS leases,
           coalesce(sum(octet_length(k.result)) FILTER (WHERE k.lease_until > now()), 0) AS leased,
           min(k.queued_at) AS oldest_at
    FROM pushfan.chunk k
    GROUP BY k.channel_id, k.lane
), waiting AS (
    SELECT r.channel_id, r.lane, count(*) AS waiting
    FROM pushfan.channel c
    CROSS JOIN LATERAL (
        SELECT t.channel_id, t.lane FROM pushfan.retry t WHERE t.channel_id = c.id ORDER BY t.due_at LIMIT %(most)s
    ) AS r
    GROUP BY r.channel_id, r.lane
)
SELECT channel_id, lane, coalesce(open.chunks, 0)::bigint AS chunks, coalesce(open.positions, 0)::bigint AS positions,
       coalesce(open.leases, 0)::bigint AS leases, coalesce(open.leased, 0)::bigint AS leased,
       coalesce(waiting.waiting, 0)::bigint AS waiting,
       CASE WHEN open.oldest_at IS NOT NULL
            THEN greatest(extract(epoch FROM clock_timestamp() - open.oldest_at), 0)::double precision
       END AS oldest_seconds
FROM open FULL JOIN waiting USING (channel_id, lane)
ORDER BY channel_id, lane

-- name: dead_letters
-- Dead letters that nobody has replayed, by kind, counted up to a limit each.
SELECT k.kind, count(*)::bigint AS letters
FROM unnest(%(kinds)s::text[]) AS k (kind)
CROSS JOIN LATERAL (
    SELECT FROM pushfan.dead_letter d WHERE d.kind = k.kind AND d.replayed_as IS NULL ORDER BY d.at LIMIT %(most)s
) AS d
GROUP BY k.kind
ORDER BY k.kind

-- name: ended
-- How many deliveries have ended since the server counts; an estimate that is about a second late, and free.
SELECT coalesce(sum(t.n_tup_ins), 0)::bigint AS ended
FROM pg_stat_user_tables t WHERE t.schemaname = 'pushfan' AND starts_with(t.relname, 'delivery')

-- name: waiting_by_app
-- How many deliveries of each app wait, planned or for another try, and notifications whose planning is not done.
SELECT w.app_id, sum(w.waiting)::bigint AS waiting
FROM (
    SELECT k.app_id, sum(cardinality(k.device_ids)) AS waiting FROM pushfan.chunk k GROUP BY k.app_id
    UNION ALL
    SELECT r.app_id, count(*) FROM pushfan.retry r GROUP BY r.app_id
    UNION ALL
    SELECT n.app_id, count(*) FROM pushfan.notification n
    WHERE n.finished_at IS NULL AND n.planned_at IS NULL
    GROUP BY n.app_id
) AS w
GROUP BY w.app_id
