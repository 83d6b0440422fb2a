-- name: serialize
-- Two who add webhooks to one app take turns.
SELECT pg_advisory_xact_lock(hashtextextended('pushfan webhooks ' || %(app_id)s, 0))

-- name: count
-- How many an app has.
SELECT count(*) AS webhooks FROM pushfan.webhook w WHERE w.app_id = %(app_id)s

-- name: put
-- A new webhook, which begins with what happens from now on; or an old one's new address. A change of either begins no
-- batch again under an id that was used for other entries.
INSERT INTO pushfan.webhook AS w (app_id, name, url, events, salt, told_xid, told_id)
VALUES (%(app_id)s, %(name)s, %(url)s, %(events)s, %(salt)s, pg_snapshot_xmin(pg_current_snapshot()), 0)
ON CONFLICT (app_id, name) DO UPDATE
SET url = excluded.url, events = excluded.events, batch_xid = NULL, batch_id = NULL, failures = 0, failing_since = NULL,
    last_error = NULL, due_at = now(), fence = w.fence + 1, state = %(state)s,
    state_reason = CASE WHEN %(state)s = 'disabled' THEN coalesce(%(reason)s, 'its admin disabled it') END,
    state_changed_at = CASE WHEN w.state = %(state)s THEN w.state_changed_at ELSE now() END
RETURNING w.fence = 0 AS is_new

-- name: rotate
-- Another salt; the one before stays good until an instant.
UPDATE pushfan.webhook w
SET previous_salt = CASE WHEN %(grace)s > interval '0' THEN w.salt END,
    previous_until = CASE WHEN %(grace)s > interval '0' THEN now() + %(grace)s END, salt = %(salt)s
WHERE w.app_id = %(app_id)s AND w.name = %(name)s
RETURNING w.id

-- name: remove
-- Told nothing any more.
DELETE FROM pushfan.webhook w WHERE w.app_id = %(app_id)s AND w.name = %(name)s RETURNING w.id

-- name: list_all
-- Webhooks by app and name, of one app or of all, one or all of a name.
SELECT w.id, w.app_id, a.name AS app, w.name, w.url, w.events, w.salt,
       CASE WHEN w.previous_until > now() THEN w.previous_salt END AS previous_salt,
       CASE WHEN w.previous_until > now() THEN w.previous_until END AS previous_until, w.state, w.state_reason,
       w.state_changed_at, w.told_xid::text::bigint AS told_xid, w.told_id, w.failures, w.failing_since, w.last_error,
       w.last_told_at, w.due_at, w.created_at
FROM pushfan.webhook w JOIN pushfan.app a ON a.id = w.app_id
WHERE (%(app_id)s::integer IS NULL OR w.app_id = %(app_id)s) AND (%(name)s::text IS NULL OR w.name = %(name)s)
ORDER BY a.name COLLATE "C", w.name COLLATE "C"

-- name: claim
-- Webhooks that have something to tell, those that wait longest first. Who claims has some time for it; others pass over
-- them meanwhile.
WITH due AS MATERIALIZED (
    SELECT w.id FROM pushfan.webhook w
    WHERE w.state = 'active' AND w.due_at <= now()
      AND (w.batch_xid IS NOT NULL
           OR 'feedback' = ANY (w.events) AND EXISTS (
               SELECT FROM pushfan.feedback f
               WHERE f.app_id = w.app_id AND (f.xid, f.id) > (w.told_xid, w.told_id)
                 AND f.xid < pg_snapshot_xmin(pg_current_snapshot()))
           OR 'finished' = ANY (w.events) AND EXISTS (
               SELECT FROM pushfan.finish f
               WHERE f.app_id = w.app_id AND (f.xid, f.id) > (w.told_xid, w.told_id)
                 AND f.xid < pg_snapshot_xmin(pg_current_snapshot())))
    ORDER BY w.due_at
    LIMIT %(limit)s
    FOR UPDATE OF w SKIP LOCKED
)
UPDATE pushfan.webhook w SET fence = w.fence + 1, due_at = now() + %(lease)s
FROM due, pushfan.app a
WHERE w.id = due.id AND a.id = w.app_id
RETURNING w.id, w.fence, w.app_id, a.name AS app, w.name, w.url, w.events, w.salt,
          CASE WHEN w.previous_until > now() THEN w.previous_salt END AS previous_salt,
          w.told_xid::text::bigint AS told_xid, w.told_id, w.batch_xid::text::bigint AS batch_xid, w.batch_id,
          w.failures, w.failing_since

-- name: feedback_entries
-- Feedback after the last entry that was told; of a batch that was begun, up to its end.
SELECT f.xid::text::bigint AS xid, f.id, f.at, f.device_id, f.user_id, f.device_key, c.name AS channel, f.kind, f.reason,
       f.token_hash
FROM pushfan.feedback f LEFT JOIN pushfan.channel c ON c.id = f.channel_id
WHERE f.app_id = %(app_id)s AND (f.xid, f.id) > (%(xid)s::text::xid8, %(id)s)
  AND f.xid < pg_snapshot_xmin(pg_current_snapshot())
  AND (%(last_xid)s::text IS NULL OR (f.xid, f.id) <= (%(last_xid)s::text::xid8, %(last_id)s))
ORDER BY f.xid, f.id
LIMIT %(limit)s

-- name: finish_entries
-- Finished notifications likewise. One that was forgotten meanwhile has no key.
SELECT f.xid::text::bigint AS xid, f.id, f.at, f.notification_id, n.key, n.kind, n.lane, n.created_at, n.cancelled_at,
       n.finished_at, n.warning, n.users, n.devices, n.accepted, n.unregistered, n.rejected, n.expired, n.cancelled,
       n.withdrawn, n.unknown, n.dead
FROM pushfan.finish f LEFT JOIN pushfan.notification n ON n.id = f.notification_id
WHERE f.app_id = %(app_id)s AND (f.xid, f.id) > (%(xid)s::text::xid8, %(id)s)
  AND f.xid < pg_snapshot_xmin(pg_current_snapshot())
  AND (%(last_xid)s::text IS NULL OR (f.xid, f.id) <= (%(last_xid)s::text::xid8, %(last_id)s))
ORDER BY f.xid, f.id
LIMIT %(limit)s

-- name: begin
-- A batch is begun: from now on it is these entries, however often it is repeated.
UPDATE pushfan.webhook w SET batch_xid = %(xid)s::text::xid8, batch_id = %(id)s
WHERE w.id = %(webhook_id)s AND w.fence = %(fence)s
RETURNING w.id

-- name: confirm
-- The receiver has the batch. What it was told of finished notifications is needed no more once no webhook of the app
-- waits for it.
WITH told AS (
    UPDATE pushfan.webhook w
    SET told_xid = %(xid)s::text::xid8, told_id = %(id)s, batch_xid = NULL, batch_id = NULL, failures = 0,
        failing_since = NULL, last_error = NULL, last_told_at = now(), due_at = now() + %(lease)s
    WHERE w.id = %(webhook_id)s AND w.fence = %(fence)s
    RETURNING w.id, w.app_id
), others AS (
    SELECT w.told_xid, w.told_id FROM pushfan.webhook w JOIN told ON told.app_id = w.app_id
    WHERE w.id <> told.id AND w.state = 'active' AND 'finished' = ANY (w.events)
    ORDER BY w.told_xid, w.told_id
    LIMIT 1
), cleared AS (
    DELETE FROM pushfan.finish f USING told
    WHERE f.app_id = told.app_id AND (f.xid, f.id) <= (%(xid)s::text::xid8, %(id)s)
      AND NOT EXISTS (SELECT FROM others o WHERE (f.xid, f.id) > (o.told_xid, o.told_id))
)
SELECT told.id FROM told

-- name: release
-- There was nothing to tell: whoever sees something may claim at once.
UPDATE pushfan.webhook w SET due_at = now() WHERE w.id = %(webhook_id)s AND w.fence = %(fence)s

-- name: fail
-- It was not told. After too long, or when its receiver is gone for good, it is disabled.
UPDATE pushfan.webhook w
SET failures = w.failures + 1, failing_since = coalesce(w.failing_since, now()), last_error = %(error)s,
    due_at = now() + %(delay)s,
    state = CASE WHEN d.is_over THEN 'disabled' ELSE w.state END,
    state_reason = CASE WHEN d.is_over THEN %(reason)s ELSE w.state_reason END,
    state_changed_at = CASE WHEN d.is_over THEN now() ELSE w.state_changed_at END
FROM (SELECT o.id, %(is_gone)s OR coalesce(o.failing_since, now()) <= now() - %(patience)s AS is_over
      FROM pushfan.webhook o WHERE o.id = %(webhook_id)s) AS d
WHERE w.id = d.id AND w.fence = %(fence)s
RETURNING w.state

-- name: forget_finishes
-- What no webhook was told for so long.
WITH held AS MATERIALIZED (
    SELECT f.app_id, f.xid, f.id FROM pushfan.finish f WHERE f.at < now() - make_interval(days => %(days)s)
    ORDER BY f.at LIMIT %(limit)s
)
DELETE FROM pushfan.finish f USING held
WHERE f.app_id = held.app_id AND f.xid = held.xid AND f.id = held.id
