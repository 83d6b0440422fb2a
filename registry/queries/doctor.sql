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
       sum(cardinality(k.device_ids))::bigint AS positions,
       greatest(extract(epoch FROM clock_timestamp() - min(k.queued_at)), 0)::double precision AS oldest_seconds
FROM pushfan.chunk k JOIN pushfan.channel c ON c.id = k.channel_id
GROUP BY k.lane, c.circuit = 'open'
ORDER BY k.lane, c.circuit = 'open'

-- name: overdue
-- What the dispatcher should have moved on long ago: retries whose time has come, planning that nobody goes on with.
SELECT
    (SELECT count(*) FROM pushfan.retry r WHERE r.due_at < now() - %(patience)s)::bigint AS retries,
    (SELECT count(*) FROM pushfan.notification n
     WHERE n.planned_at IS NULL AND n.finished_at IS NULL AND n.plan_due_at < now() - %(patience)s)::bigint AS plans

-- name: partitions
-- Whether deliveries fell into the default partition, and whether tomorrow has one of its own.
SELECT EXISTS (SELECT FROM pushfan.delivery_default) AS is_default_used,
       to_regclass('pushfan.delivery_' || to_char((now() AT TIME ZONE 'UTC')::date + 1, 'YYYYMMDD')) IS NOT NULL
           AS is_tomorrow_ready

-- name: dead_letters
-- What became a dead letter lately, by kind.
SELECT d.kind, count(*)::bigint AS letters
FROM pushfan.dead_letter d
WHERE d.at > now() - %(within)s AND d.replayed_as IS NULL
GROUP BY d.kind
ORDER BY d.kind
