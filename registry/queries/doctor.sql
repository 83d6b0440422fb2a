-- name: workers
-- Who runs: workers heard of lately, with the seconds since.
SELECT w.name, w.lanes, w.processes, w.version, w.started_at, w.seen_at,
       extract(epoch FROM clock_timestamp() - w.seen_at)::double precision AS silent_seconds
FROM pushfan.worker w
WHERE w.seen_at > now() - %(within)s
ORDER BY w.name

-- name: backlog
-- Chunks that may be sent now, by lane and whether their channel is stopped, with the age of the oldest.
SELECT k.lane, c.circuit = 'open' AS is_stopped, count(*)::bigint AS chunks,
       sum(octet_length(k.result))::bigint AS positions,
       greatest(extract(epoch FROM clock_timestamp() - min(k.queued_at)), 0)::double precision AS oldest_seconds
FROM pushfan.chunk k JOIN pushfan.channel c ON c.id = k.channel_id
GROUP BY k.lane, c.circuit = 'open'
ORDER BY k.lane, c.circuit = 'open'

-- name: overdue
-- What the dispatcher should have moved on long ago: retries whose time has come (counted up to a limit for a channel;
-- those of a stopped channel may wait), planning that nobody goes on with.
SELECT
    (SELECT count(*) FROM pushfan.channel c CROSS JOIN LATERAL (
         SELECT FROM pushfan.retry r WHERE r.channel_id = c.id AND r.due_at < now() - %(patience)s
         ORDER BY r.due_at LIMIT %(most)s
     ) AS r WHERE c.circuit = 'closed')::bigint AS retries,
    (SELECT count(*) FROM pushfan.notification n
     WHERE n.planned_at IS NULL AND n.finished_at IS NULL AND n.plan_due_at < now() - %(patience)s)::bigint AS plans

-- name: partitions
-- Whether deliveries fell into the default partition, and whether tomorrow has one of its own.
SELECT EXISTS (SELECT FROM pushfan.delivery_default) AS is_default_used,
       to_regclass('pushfan.delivery_' || to_char((now() AT TIME ZONE 'UTC')::date + 1, 'YYYYMMDD')) IS NOT NULL
           AS is_tomorrow_ready

-- name: answers
-- What the last deliveries ended with, by channel: the tail of the newest partition, whatever lies before it. OFFSET 0
-- keeps the look-up of a device one by its index: as a plain join it may read them all.
WITH lately AS MATERIALIZED (
    SELECT d.device_id, d.outcome, d.reason FROM pushfan.delivery d
    WHERE d.notification_id >= pushfan.notification_id_at(now() - %(within)s)
    ORDER BY d.notification_id DESC, d.device_id DESC
    LIMIT %(limit)s
)
SELECT v.channel_id, count(*)::bigint AS answers,
       count(*) FILTER (WHERE l.outcome = 'rejected')::bigint AS rejected,
       mode() WITHIN GROUP (ORDER BY l.reason) FILTER (WHERE l.outcome = 'rejected') AS reason
FROM lately l CROSS JOIN LATERAL (SELECT o.channel_id FROM pushfan.device o WHERE o.id = l.device_id OFFSET 0) AS v
WHERE l.outcome IN ('accepted', 'unregistered', 'rejected')
GROUP BY v.channel_id
ORDER BY v.channel_id

-- name: dead_letters
-- What became a dead letter lately, by kind.
SELECT d.kind, count(*)::bigint AS letters
FROM pushfan.dead_letter d
WHERE d.at > now() - %(within)s AND d.replayed_as IS NULL
GROUP BY d.kind
ORDER BY d.kind
