-- name: leases
-- What is being sent now, and by whom; `unrecorded` are the positions that a kill would leave in doubt.
SELECT k.id AS chunk_id, k.channel_id, k.lane, k.notification_ids[1] AS notification_id, k.owner, k.fence,
       cardinality(k.device_ids) AS positions, k.issued,
       (SELECT count(*) FROM generate_series(0, k.issued - 1) AS p (position)
        WHERE get_byte(k.result, p.position) = 0)::integer AS unrecorded
FROM pushfan.chunk k
WHERE k.published_at IS NOT NULL AND k.lease_until > clock_timestamp()
ORDER BY k.id

-- name: backlog
-- For each channel and lane: open positions, those of them under a lease, and deliveries that wait for another try.
WITH open AS (
    SELECT k.channel_id, k.lane, count(*) AS chunks, sum(cardinality(k.device_ids)) AS positions,
           coalesce(sum(cardinality(k.device_ids)) FILTER (WHERE k.lease_until > now()), 0) AS leased
    FROM pushfan.chunk k
    GROUP BY k.channel_id, k.lane
), waiting AS (
    SELECT r.channel_id, r.lane, count(*) AS waiting FROM pushfan.retry r GROUP BY r.channel_id, r.lane
)
SELECT channel_id, lane, coalesce(open.chunks, 0)::bigint AS chunks, coalesce(open.positions, 0)::bigint AS positions,
       coalesce(open.leased, 0)::bigint AS leased, coalesce(waiting.waiting, 0)::bigint AS waiting
FROM open FULL JOIN waiting USING (channel_id, lane)
ORDER BY channel_id, lane

-- name: ended
-- How many deliveries have ended since the server counts; an estimate that is about a second late, and free.
SELECT coalesce(sum(t.n_tup_ins), 0)::bigint AS ended
FROM pg_stat_user_tables t WHERE t.schemaname = 'pushfan' AND starts_with(t.relname, 'delivery')
