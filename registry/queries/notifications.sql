-- name: take_in
-- Store events as notifications, once for each key.
SELECT event_id, notification_id, status FROM pushfan.take_in(%(events)s)

-- name: wait_briefly
-- An id may be held by a transaction that a producer keeps open: others' events must not wait for that.
SET LOCAL lock_timeout = '300ms'

-- name: plan_small
-- Plan small notifications at once, all users of each: one pass over the registry, chunks bundle the deliveries of
-- many. Small are direct pushes of less than a page, and writes and messages whose subscribers, counted on from one
-- to the next, are less than a page together. OFFSET 0 keeps the look-up of a user's devices one by its index: as a
-- plain join, and before the first ANALYZE, it read all devices of the app for each notification.
-- This transaction has taken them in: nobody else sees them, and they need no lock.
WITH held AS MATERIALIZED (
    SELECT n.id, n.app_id, n.kind, n.lane, n.target_id, n.recipients, n.excluded_user, n.excluded_providers,
           n.environment, n.expires_at
    FROM pushfan.notification n
    WHERE n.id = ANY (%(ids)s) AND n.planned_at IS NULL AND n.cancelled_at IS NULL
), counted AS (
    SELECT h.*, coalesce(cardinality(h.recipients), s.users) AS users,
           CASE WHEN h.recipients IS NULL
                THEN sum(s.users) OVER (PARTITION BY h.recipients IS NULL ORDER BY h.id) END AS users_so_far
    FROM held h
    LEFT JOIN (
        SELECT t.target_id, (SELECT count(*)::integer FROM (
            SELECT FROM pushfan.subscription s WHERE s.target_id = t.target_id LIMIT %(page_size)s) AS l) AS subscribers
        FROM (SELECT DISTINCT h.target_id FROM held h WHERE h.recipients IS NULL) AS t
    ) AS t ON t.target_id = h.target_id
    CROSS JOIN LATERAL (SELECT coalesce(t.subscribers, 0) AS users) AS s
), fresh AS MATERIALIZED (
    SELECT c.* FROM counted c WHERE coalesce(c.users_so_far, c.users) < %(page_size)s
), addressed AS MATERIALIZED (
    SELECT f.id AS notification_id, f.app_id, f.lane, f.expires_at, d.id AS device_id, d.channel_id
    FROM fresh f
    CROSS JOIN LATERAL (
        SELECT u.user_id COLLATE "C" AS user_id FROM unnest(f.recipients) AS u (user_id)
        UNION ALL
        SELECT s.user_id FROM pushfan.subscription s WHERE f.recipients IS NULL AND s.target_id = f.target_id
    ) AS r
    CROSS JOIN LATERAL (
        SELECT o.id, o.channel_id FROM pushfan.device o
        WHERE o.app_id = f.app_id AND o.user_id = r.user_id AND o.state IN ('active', 'suspect')
        OFFSET 0
    ) AS d
    JOIN pushfan.channel c ON c.id = d.channel_id AND c.provider <> ALL (f.excluded_providers)
         AND c.environment = coalesce(f.environment, c.environment)
    WHERE r.user_id IS DISTINCT FROM f.excluded_user
), numbered AS (
    SELECT a.*, (row_number() OVER (
        PARTITION BY a.channel_id, a.lane ORDER BY a.notification_id, a.device_id) - 1) / %(chunk_size)s AS part
    FROM addressed a
), chunks AS (
    INSERT INTO pushfan.chunk (app_id, channel_id, lane, notification_ids, device_ids, expires_at, result)
    SELECT app_id, channel_id, lane,
           CASE WHEN min(notification_id) = max(notification_id) THEN ARRAY[min(notification_id)]
                ELSE array_agg(notification_id ORDER BY notification_id, device_id) END,
           array_agg(device_id ORDER BY notification_id, device_id), max(expires_at),
           decode(repeat('00', count(*)::integer), 'hex')
    FROM numbered
    GROUP BY app_id, channel_id, lane, part
    RETURNING channel_id
), planned AS (
    UPDATE pushfan.notification n
    SET planned_at = clock_timestamp(), users = f.users, devices = coalesce(a.devices, 0),
        warning = CASE WHEN f.users = 0 THEN 'nobody is subscribed to this ' || f.kind
                       WHEN a.devices IS NULL THEN 'none of the users has a device' END,
        finished_at = CASE WHEN a.devices IS NULL THEN clock_timestamp() END
    FROM fresh f LEFT JOIN (
        SELECT notification_id, count(*)::integer AS devices FROM addressed GROUP BY notification_id
    ) AS a ON a.notification_id = f.id
    WHERE n.id = f.id
    RETURNING n.id
)
SELECT ARRAY(SELECT id FROM planned) AS planned, ARRAY(SELECT DISTINCT channel_id FROM chunks) AS channel_ids

-- name: hold_promotions
-- A page sees each user on one side of a promotion. Before its statement, whose snapshot must be younger.
SELECT pg_advisory_xact_lock_shared(hashtext('pushfan.promote'), n.app_id)
FROM pushfan.notification n WHERE n.id = %(id)s

-- name: plan_page
-- Plan the next page of one notification: read the cursor from the locked row, resolve the next users to
-- devices, freeze them into chunks and move the cursor, in one statement. Whoever dies around it repeats nothing.
-- A fan-out that does not fit in one page is bulk, unless its publisher chose the lane.
WITH fresh AS MATERIALIZED (
    SELECT n.* FROM pushfan.notification n
    WHERE n.id = %(id)s AND n.planned_at IS NULL AND n.cancelled_at IS NULL
    FOR NO KEY UPDATE
), page AS MATERIALIZED (
    (SELECT s.user_id FROM pushfan.subscription s
     WHERE s.target_id = (SELECT target_id FROM fresh) AND s.user_id > (SELECT planned_user FROM fresh)
     ORDER BY s.user_id LIMIT %(page_size)s)
    UNION ALL
    (SELECT r.user_id COLLATE "C" FROM fresh CROSS JOIN LATERAL unnest(fresh.recipients) AS r (user_id)
     WHERE r.user_id COLLATE "C" > fresh.planned_user
     ORDER BY 1 LIMIT %(page_size)s)
), lane AS (
    SELECT CASE WHEN NOT fresh.is_lane_fixed AND (SELECT count(*) FROM page) >= %(page_size)s THEN 'bulk'
                ELSE fresh.lane END AS lane
    FROM fresh
), numbered AS (
    SELECT d.id AS device_id, d.channel_id,
           (row_number() OVER (PARTITION BY d.channel_id ORDER BY d.id) - 1) / %(chunk_size)s AS part
    FROM fresh
    CROSS JOIN page
    CROSS JOIN LATERAL (
        SELECT o.id, o.channel_id FROM pushfan.device o
        WHERE o.app_id = fresh.app_id AND o.user_id = page.user_id AND o.state IN ('active', 'suspect')
        OFFSET 0
    ) AS d
    JOIN pushfan.channel c ON c.id = d.channel_id AND c.provider <> ALL (fresh.excluded_providers)
         AND c.environment = coalesce(fresh.environment, c.environment)
    WHERE page.user_id IS DISTINCT FROM fresh.excluded_user
), chunks AS (
    INSERT INTO pushfan.chunk (app_id, channel_id, lane, notification_ids, device_ids, expires_at, result)
    SELECT fresh.app_id, v.channel_id, lane.lane, ARRAY[fresh.id], v.device_ids, fresh.expires_at,
           decode(repeat('00', cardinality(v.device_ids)), 'hex')
    FROM fresh, lane, (
        SELECT channel_id, part, array_agg(device_id ORDER BY device_id) AS device_ids
        FROM numbered GROUP BY channel_id, part
    ) AS v
    RETURNING channel_id, cardinality(device_ids) AS positions
), sums AS (
    SELECT (SELECT count(*)::integer FROM page) AS users, (SELECT max(user_id) FROM page) AS last_user,
           (SELECT coalesce(sum(positions), 0)::integer FROM chunks) AS devices
)
UPDATE pushfan.notification n
SET planned_user = coalesce(sums.last_user, n.planned_user), users = n.users + sums.users,
    devices = n.devices + sums.devices, lane = lane.lane, plan_due_at = now() + interval '5 seconds',
    planned_at = CASE WHEN sums.users < %(page_size)s THEN clock_timestamp() END,
    warning = CASE WHEN n.users + sums.users = 0 THEN 'nobody is subscribed to this ' || n.kind
                   WHEN sums.users < %(page_size)s AND n.devices + sums.devices = 0
                   THEN 'none of the users has a device' END,
    finished_at = CASE WHEN sums.users < %(page_size)s AND n.devices + sums.devices =
        n.accepted + n.unregistered + n.rejected + n.expired + n.cancelled + n.withdrawn + n.unknown + n.dead
        THEN clock_timestamp() END
FROM sums, lane
WHERE n.id = %(id)s AND EXISTS (SELECT FROM fresh)
RETURNING sums.users, sums.devices, n.planned_at IS NOT NULL AS is_planned,
          ARRAY(SELECT DISTINCT channel_id FROM chunks) AS channel_ids

-- name: plan_device
-- Plan one notification just taken in for a single device, whomever its event names: this delivery alone is meant.
-- No row if it is planned already; no channel if the device is no longer in use.
WITH fresh AS MATERIALIZED (
    SELECT n.id, n.app_id, n.lane, n.expires_at FROM pushfan.notification n
    WHERE n.id = %(id)s AND n.planned_at IS NULL AND n.cancelled_at IS NULL
    FOR NO KEY UPDATE
), chunks AS (
    INSERT INTO pushfan.chunk (app_id, channel_id, lane, notification_ids, device_ids, expires_at, result)
    SELECT f.app_id, d.channel_id, f.lane, ARRAY[f.id], ARRAY[d.id], f.expires_at, decode('00', 'hex')
    FROM fresh f
    JOIN pushfan.device d ON d.id = %(device_id)s AND d.app_id = f.app_id AND d.state IN ('active', 'suspect')
    RETURNING channel_id
)
UPDATE pushfan.notification n
SET planned_at = clock_timestamp(), users = 1, devices = (SELECT count(*) FROM chunks)::integer
FROM fresh WHERE n.id = fresh.id
RETURNING (SELECT channel_id FROM chunks) AS channel_id

-- name: due_plans
-- Notifications whose planning waits, or stopped with its planner.
WITH due AS (
    SELECT n.id FROM pushfan.notification n
    WHERE n.planned_at IS NULL AND n.finished_at IS NULL AND n.plan_due_at <= now()
    ORDER BY n.plan_due_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE pushfan.notification n SET plan_due_at = now() + interval '5 seconds'
FROM due WHERE n.id = due.id
RETURNING n.id, n.lane

-- name: cancel
-- Raise the flag: planning ends, and nothing more of it is sent.
UPDATE pushfan.notification n
SET cancelled_at = clock_timestamp(), planned_at = coalesce(n.planned_at, clock_timestamp()),
    finished_at = CASE WHEN n.devices =
        n.accepted + n.unregistered + n.rejected + n.expired + n.cancelled + n.withdrawn + n.unknown + n.dead
        THEN clock_timestamp() END
WHERE n.id = %(id)s AND n.finished_at IS NULL AND n.cancelled_at IS NULL
RETURNING n.id

-- name: hurry_chunks
-- After the flag is committed: what waits of a cancelled notification ends now, whatever the circuit says. A chunk
-- in which nothing else is open expires as it is. Out of one that others share its open positions move into a
-- chunk of their own, expired, those that are unsure first. The fence grows with that: an owner whose lease has run
-- out, and whom nobody has followed, could record them as well. Neither part travels with others any more.
WITH held AS MATERIALIZED (
    SELECT k.* FROM pushfan.chunk k
    WHERE %(id)s::bigint = ANY (k.notification_ids) AND (k.lease_until IS NULL OR k.lease_until < clock_timestamp())
    ORDER BY k.id
    FOR UPDATE
), divided AS MATERIALIZED (
    SELECT h.id, h.app_id, h.channel_id, h.lane, h.queued_at, part.*
    FROM held h CROSS JOIN LATERAL (
        SELECT bool_or(get_byte(h.result, p.position - 1) = 0 AND NOT is_leaving) AS is_shared,
               array_agg(h.device_ids[p.position] ORDER BY p.position) FILTER (WHERE is_leaving) AS device_ids,
               array_agg(h.attempts[CASE cardinality(h.attempts) WHEN 1 THEN 1 ELSE p.position END]
                         ORDER BY p.position) FILTER (WHERE is_leaving) AS attempts,
               jsonb_agg(h.earlier -> (p.position - 1) ORDER BY p.position)
                   FILTER (WHERE is_leaving AND h.earlier IS NOT NULL) AS earlier,
               array_agg(h.request_tags[p.position] ORDER BY p.position)
                   FILTER (WHERE is_leaving AND h.request_tags IS NOT NULL) AS request_tags,
               count(*) FILTER (WHERE is_leaving AND p.position <= h.issued)::integer AS issued,
               string_agg(CASE WHEN is_leaving THEN '\x00'::bytea ELSE '' END, '') AS open,
               string_agg(CASE WHEN is_leaving THEN '\x0a'::bytea ELSE substring(h.result FROM p.position FOR 1) END,
                          '' ORDER BY p.position) AS rest
        FROM generate_series(1, cardinality(h.device_ids)) AS p (position)
        CROSS JOIN LATERAL (SELECT get_byte(h.result, p.position - 1) = 0 AND %(id)s = h.notification_ids[
            CASE cardinality(h.notification_ids) WHEN 1 THEN 1 ELSE p.position END] AS is_leaving) AS l
    ) AS part
    WHERE part.device_ids IS NOT NULL
), moved AS (
    INSERT INTO pushfan.chunk (app_id, channel_id, lane, notification_ids, device_ids, attempts, earlier,
                               request_tags, expires_at, queued_at, fence, issued, result)
    SELECT d.app_id, d.channel_id, d.lane, ARRAY[%(id)s::bigint], d.device_ids, d.attempts,
           d.earlier, d.request_tags, clock_timestamp(), d.queued_at, 1, d.issued, d.open
    FROM divided d WHERE d.is_shared
)
UPDATE pushfan.chunk k
SET fence = k.fence + d.is_shared::integer, result = CASE WHEN d.is_shared THEN d.rest ELSE k.result END,
    expires_at = CASE WHEN d.is_shared THEN k.expires_at ELSE clock_timestamp() END,
    ready_at = CASE WHEN d.is_shared THEN k.ready_at ELSE least(k.ready_at, now()) END
FROM divided d WHERE k.id = d.id

-- name: hurry_retries
-- Expired, so that their chunk ends whatever the circuit says. Before the chunks: rows that are just being moved are
-- waited for, and found there.
UPDATE pushfan.retry r SET due_at = clock_timestamp(), expires_at = clock_timestamp() WHERE r.notification_id = %(id)s

-- name: find
-- One notification by id, of any app if none is named.
SELECT n.*, a.name AS app FROM pushfan.notification n JOIN pushfan.app a ON a.id = n.app_id
WHERE n.id = %(id)s AND a.name = coalesce(%(app)s, a.name)

-- name: find_by_key
-- One notification by its event's id; the newest, should the key have been used again after its days.
SELECT n.*, a.name AS app FROM pushfan.notification n JOIN pushfan.app a ON a.id = n.app_id
WHERE a.name = coalesce(%(app)s, a.name) AND n.key = %(key)s
ORDER BY n.id DESC LIMIT 1

-- name: list_page
-- Notifications, the newest first, older than a given one.
SELECT n.*, a.name AS app FROM pushfan.notification n JOIN pushfan.app a ON a.id = n.app_id
WHERE (%(app)s::text IS NULL OR a.name = %(app)s) AND n.id < %(before)s
  AND (NOT %(unfinished)s OR n.finished_at IS NULL)
ORDER BY n.id DESC
LIMIT %(limit)s

-- name: progress
-- Open positions and waiting retries of a notification: with its final outcomes they add up to its devices.
SELECT
    (SELECT count(*) FROM pushfan.chunk k
     CROSS JOIN LATERAL generate_series(0, cardinality(k.device_ids) - 1) AS p (position)
     WHERE %(id)s = ANY (k.notification_ids) AND get_byte(k.result, p.position) = 0
       AND k.notification_ids[CASE cardinality(k.notification_ids) WHEN 1 THEN 1 ELSE p.position + 1 END] = %(id)s
    )::integer AS open,
    (SELECT count(*) FROM pushfan.retry r WHERE r.notification_id = %(id)s)::integer AS waiting,
    (SELECT count(*) FROM pushfan.delivery d WHERE d.notification_id = %(id)s)::integer AS final

-- name: conservation
-- The invariant over everything: planned = open + waiting + final. Deliveries of pruned days aside.
SELECT
    (SELECT coalesce(sum(n.devices), 0) FROM pushfan.notification n)::bigint AS planned,
    (SELECT count(*) FROM pushfan.chunk k
     CROSS JOIN LATERAL generate_series(0, cardinality(k.device_ids) - 1) AS p (position)
     WHERE get_byte(k.result, p.position) = 0)::bigint AS open,
    (SELECT count(*) FROM pushfan.retry)::bigint AS waiting,
    (SELECT count(*) FROM pushfan.delivery)::bigint AS final

-- name: trace_final
-- Deliveries of a notification that ended, with their devices; of one user if named.
SELECT d.device_id, v.user_id, v.device_key, c.name AS channel, c.provider, v.state AS device_state,
       d.outcome::text AS state, d.attempts, d.reason, d.provider_id, d.at, d.earlier
FROM pushfan.delivery d
LEFT JOIN pushfan.device v ON v.id = d.device_id
LEFT JOIN pushfan.channel c ON c.id = v.channel_id
WHERE d.notification_id = %(id)s AND (%(user)s::text IS NULL OR v.user_id = %(user)s)
  AND d.device_id > %(after)s
ORDER BY d.device_id
LIMIT %(limit)s

-- name: trace_waiting
-- Deliveries of a notification that wait for another attempt.
SELECT r.device_id, v.user_id, v.device_key, c.name AS channel, c.provider, v.state AS device_state,
       'waiting' AS state, r.attempts, NULL AS reason, NULL AS provider_id, r.due_at AS at, r.earlier
FROM pushfan.retry r
LEFT JOIN pushfan.device v ON v.id = r.device_id
LEFT JOIN pushfan.channel c ON c.id = r.channel_id
WHERE r.notification_id = %(id)s AND (%(user)s::text IS NULL OR v.user_id = %(user)s)
ORDER BY r.device_id
LIMIT %(limit)s

-- name: trace_open
-- Deliveries of a notification that are planned, and perhaps being sent.
SELECT v.id AS device_id, v.user_id, v.device_key, c.name AS channel, c.provider, v.state AS device_state,
       CASE WHEN k.lease_until > clock_timestamp() AND p.position < k.issued THEN 'sending' ELSE 'planned' END AS state,
       k.attempts[CASE cardinality(k.attempts) WHEN 1 THEN 1 ELSE p.position + 1 END] AS attempts,
       CASE WHEN c.circuit = 'open' THEN 'the channel is stopped: ' || c.circuit_reason END AS reason,
       NULL AS provider_id, k.queued_at AS at, k.earlier -> p.position AS earlier
FROM pushfan.chunk k
CROSS JOIN LATERAL generate_series(0, cardinality(k.device_ids) - 1) AS p (position)
JOIN pushfan.device v ON v.id = k.device_ids[p.position + 1]
JOIN pushfan.channel c ON c.id = k.channel_id
WHERE %(id)s = ANY (k.notification_ids) AND get_byte(k.result, p.position) = 0
  AND k.notification_ids[CASE cardinality(k.notification_ids) WHEN 1 THEN 1 ELSE p.position + 1 END] = %(id)s
  AND (%(user)s::text IS NULL OR v.user_id = %(user)s)
ORDER BY v.id
LIMIT %(limit)s

-- name: deliveries
-- A page of a notification's deliveries wherever they are, by device; of one user or in one state if named.
SELECT p.* FROM (
    (SELECT d.device_id, v.user_id, v.device_key, c.name AS channel, c.provider, v.state AS device_state,
            d.outcome::text AS state, d.attempts, d.reason, d.provider_id, d.at, d.earlier
     FROM pushfan.delivery d
     LEFT JOIN pushfan.device v ON v.id = d.device_id
     LEFT JOIN pushfan.channel c ON c.id = v.channel_id
     WHERE d.notification_id = %(id)s AND d.device_id > %(after)s
       AND (%(user)s::text IS NULL OR v.user_id = %(user)s)
       AND (%(state)s::text IS NULL OR d.outcome::text = %(state)s)
     ORDER BY d.device_id LIMIT %(limit)s)
    UNION ALL
    (SELECT r.device_id, v.user_id, v.device_key, c.name, c.provider, v.state, 'waiting', r.attempts, NULL, NULL,
            r.due_at, r.earlier
     FROM pushfan.retry r
     LEFT JOIN pushfan.device v ON v.id = r.device_id
     LEFT JOIN pushfan.channel c ON c.id = r.channel_id
     WHERE r.notification_id = %(id)s AND r.device_id > %(after)s
       AND (%(user)s::text IS NULL OR v.user_id = %(user)s)
       AND (%(state)s::text IS NULL OR %(state)s = 'waiting')
     ORDER BY r.device_id LIMIT %(limit)s)
    UNION ALL
    (SELECT o.* FROM (
        SELECT k.device_ids[p.position + 1] AS device_id, v.user_id, v.device_key, c.name, c.provider,
               v.state AS device_state,
               CASE WHEN k.lease_until > clock_timestamp() AND p.position < k.issued THEN 'sending'
                    ELSE 'planned' END AS state,
               k.attempts[CASE cardinality(k.attempts) WHEN 1 THEN 1 ELSE p.position + 1 END] AS attempts,
               CASE WHEN c.circuit = 'open' THEN 'the channel is stopped: ' || c.circuit_reason END,
               NULL, k.queued_at, k.earlier -> p.position
        FROM pushfan.chunk k
        CROSS JOIN LATERAL generate_series(0, cardinality(k.device_ids) - 1) AS p (position)
        LEFT JOIN pushfan.device v ON v.id = k.device_ids[p.position + 1]
        JOIN pushfan.channel c ON c.id = k.channel_id
        WHERE %(id)s = ANY (k.notification_ids) AND get_byte(k.result, p.position) = 0
          AND k.notification_ids[CASE cardinality(k.notification_ids) WHEN 1 THEN 1 ELSE p.position + 1 END] = %(id)s
     ) AS o
     WHERE o.device_id > %(after)s AND (%(user)s::text IS NULL OR o.user_id = %(user)s)
       AND (%(state)s::text IS NULL OR o.state = %(state)s)
     ORDER BY o.device_id LIMIT %(limit)s)
) AS p
ORDER BY p.device_id
LIMIT %(limit)s

-- name: preview
-- The devices that an event would reach now, by channel, with one of each channel's locales.
SELECT c.id AS channel_id, c.name AS channel, c.provider, d.locale, count(*)::integer AS devices
FROM pushfan.device d JOIN pushfan.channel c ON c.id = d.channel_id
WHERE d.app_id = (SELECT a.id FROM pushfan.app a WHERE a.name = %(app)s) AND d.state IN ('active', 'suspect')
  AND d.user_id IN (
      SELECT u.value COLLATE "C" FROM unnest(%(users)s::text[]) AS u (value)
      UNION
      SELECT s.user_id FROM pushfan.target t JOIN pushfan.subscription s ON s.target_id = t.id
      WHERE t.app_id = d.app_id AND t.kind = %(kind)s AND t.scope = %(scope)s AND t.name = %(name)s)
  AND d.user_id IS DISTINCT FROM %(actor)s
  AND c.environment = coalesce(%(environment)s, c.environment)
GROUP BY c.id, c.name, c.provider, d.locale
ORDER BY c.name, d.locale

-- name: providers_in_use
-- Which providers an app's events can reach.
SELECT DISTINCT c.provider FROM pushfan.channel c JOIN pushfan.app a ON a.id = c.app_id WHERE a.name = %(app)s

-- name: clear_contents
-- What finished notifications said is not kept for long.
WITH old AS (
    SELECT n.id FROM pushfan.notification n
    WHERE n.event IS NOT NULL AND n.finished_at < now() - %(age)s
    ORDER BY n.id LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE pushfan.notification n SET event = NULL, recipients = NULL FROM old WHERE n.id = old.id

-- name: forget_keys
-- Idempotency keys are kept for some days.
WITH old AS (
    SELECT k.app_id, k.key FROM pushfan.event_key k WHERE k.created_at < now() - %(age)s
    ORDER BY k.created_at LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
DELETE FROM pushfan.event_key k USING old WHERE k.app_id = old.app_id AND k.key = old.key

-- name: make_partitions
SELECT pushfan.make_partitions(2)

-- name: drop_partitions
-- What became of deliveries is kept for some days.
SELECT pushfan.drop_partitions(%(days)s)

-- name: forget_notifications
-- Notifications go with their deliveries.
WITH old AS (
    SELECT n.id FROM pushfan.notification n
    WHERE n.id < pushfan.notification_id_at(now() - make_interval(days => %(days)s)) AND n.finished_at IS NOT NULL
    ORDER BY n.id LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
DELETE FROM pushfan.notification n USING old WHERE n.id = old.id

-- name: store_dead_letter
-- What will not move by itself any more.
INSERT INTO pushfan.dead_letter (app_id, kind, error, body, notification_id)
SELECT (SELECT a.id FROM pushfan.app a WHERE a.name = %(app)s), %(kind)s, %(error)s, %(body)s, %(notification_id)s
RETURNING id

-- name: heartbeat
-- A worker says that it runs.
INSERT INTO pushfan.worker (name, lanes, processes, version)
VALUES (%(name)s, %(lanes)s, %(processes)s, %(version)s)
ON CONFLICT (name) DO UPDATE
SET lanes = excluded.lanes, processes = excluded.processes, version = excluded.version, seen_at = now()

-- name: take_leave
-- A worker was stopped: nobody shall wonder why it is silent.
DELETE FROM pushfan.worker w WHERE w.name = %(name)s

-- name: forget_workers
-- Workers that have been silent for an hour are gone.
DELETE FROM pushfan.worker w WHERE w.seen_at < now() - interval '1 hour'
