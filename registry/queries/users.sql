-- name: export_feedback
-- What was said about a user's tokens.
SELECT f.at, f.kind, f.reason, f.device_key, f.device_id, f.token_hash
FROM pushfan.feedback f
WHERE f.app_id = %(app_id)s AND f.user_id = %(user_id)s
ORDER BY f.xid, f.id
LIMIT %(limit)s

-- name: export_deliveries
-- What was sent to a user's devices, the newest first, with what it said if that is still stored.
SELECT d.notification_id, n.key AS event_id, n.kind, d.device_id, v.device_key, d.at, d.outcome::text AS outcome,
       d.attempts, d.reason, n.event -> 'message' AS message
FROM pushfan.device v
JOIN pushfan.delivery d ON d.device_id = v.id
LEFT JOIN pushfan.notification n ON n.id = d.notification_id
WHERE v.app_id = %(app_id)s AND v.user_id = %(user_id)s
ORDER BY d.notification_id DESC, d.device_id
LIMIT %(limit)s

-- name: forget_devices
-- Some of a user's devices. What is planned for them ends withdrawn.
WITH held AS MATERIALIZED (
    SELECT d.id FROM pushfan.device d
    WHERE d.app_id = %(app_id)s AND d.user_id = %(user_id)s
    ORDER BY d.id
    LIMIT %(limit)s
    FOR UPDATE
)
DELETE FROM pushfan.device d USING held WHERE d.id = held.id
RETURNING d.id

-- name: scrub_receipts
-- Tokens of deleted devices are not asked about any more.
UPDATE pushfan.receipt_poll p
SET device_ids = ARRAY(
        SELECT m.device_id FROM unnest(p.device_ids) WITH ORDINALITY AS m (device_id, place)
        WHERE m.device_id <> ALL (%(ids)b::bigint[]) ORDER BY m.place),
    tokens = ARRAY(
        SELECT m.token FROM unnest(p.device_ids, p.tokens) WITH ORDINALITY AS m (device_id, token, place)
        WHERE m.device_id <> ALL (%(ids)b::bigint[]) ORDER BY m.place)
WHERE p.device_ids && %(ids)b::bigint[]

-- name: drop_empty_receipts
-- Nothing is left to ask.
DELETE FROM pushfan.receipt_poll p WHERE cardinality(p.device_ids) = 0

-- name: unlink_letters
-- Dead letters of deleted devices stay, without the device.
UPDATE pushfan.dead_letter l SET device_id = NULL WHERE l.device_id = ANY (%(ids)b::bigint[])

-- name: forget_subscriptions
-- Some of what a user is subscribed to.
WITH held AS MATERIALIZED (
    SELECT s.target_id, s.user_id FROM pushfan.subscription s
    WHERE s.app_id = %(app_id)s AND s.user_id = %(user_id)s
    ORDER BY s.target_id
    LIMIT %(limit)s
    FOR UPDATE
)
DELETE FROM pushfan.subscription s USING held WHERE s.target_id = held.target_id AND s.user_id = held.user_id

-- name: forget_memberships
-- Some of the groups that a user belongs to.
WITH held AS MATERIALIZED (
    SELECT m.group_id FROM pushfan.group_member m
    WHERE m.app_id = %(app_id)s AND m.user_id = %(user_id)s
    ORDER BY m.group_id
    LIMIT %(limit)s
    FOR UPDATE
)
DELETE FROM pushfan.group_member m USING held
WHERE m.app_id = %(app_id)s AND m.group_id = held.group_id AND m.user_id = %(user_id)s

-- name: forget_feedback
-- Some of what was said about a user's tokens.
WITH held AS MATERIALIZED (
    SELECT f.xid, f.id FROM pushfan.feedback f
    WHERE f.app_id = %(app_id)s AND f.user_id = %(user_id)s
    ORDER BY f.xid, f.id
    LIMIT %(limit)s
    FOR UPDATE
)
DELETE FROM pushfan.feedback f USING held WHERE f.xid = held.xid AND f.id = held.id

-- name: notification_page
-- The last of the next notifications of an app.
SELECT max(p.id) AS last FROM (
    SELECT n.id FROM pushfan.notification n
    WHERE n.app_id = %(app_id)s AND n.id > %(after)s
    ORDER BY n.id
    LIMIT %(limit)s
) AS p

-- name: scrub_notifications
-- Take a user out of a page of notifications. An event to this user alone is cleared when it has ended; before,
-- it keeps its form, with a placeholder, since a worker may be about to read it.
-- The planner's cursor goes back to the user before, whom it has planned; between the two there is nobody.
WITH named AS MATERIALIZED (
    SELECT n.id FROM pushfan.notification n
    WHERE n.app_id = %(app_id)s AND n.id > %(after)s AND n.id <= %(last)s
      AND (%(user_id)s = ANY (n.recipients) OR n.excluded_user = %(user_id)s OR n.planned_user = %(user_id)s
           OR n.event -> 'users' ? %(user_id)s OR n.event ->> 'actor' = %(user_id)s
           OR n.event ->> 'scope' = %(scope)s)
    ORDER BY n.id
    FOR NO KEY UPDATE
)
UPDATE pushfan.notification n
SET recipients = array_remove(n.recipients, %(user_id)s COLLATE "C"),
    excluded_user = nullif(n.excluded_user, %(user_id)s),
    planned_user = CASE
        WHEN n.planned_user <> %(user_id)s THEN n.planned_user
        WHEN n.planned_at IS NOT NULL THEN ''
        WHEN n.recipients IS NOT NULL THEN coalesce((
            SELECT max(r.user_id COLLATE "C") FROM unnest(n.recipients) AS r (user_id)
            WHERE r.user_id COLLATE "C" < %(user_id)s), '')
        ELSE coalesce((
            SELECT max(s.user_id) FROM pushfan.subscription s
            WHERE s.target_id = n.target_id AND s.user_id < %(user_id)s), '') END,
    event = CASE
        WHEN n.event -> 'users' = jsonb_build_array(%(user_id)s::text) AND n.finished_at IS NOT NULL THEN NULL
        ELSE n.event
            - CASE WHEN n.event ->> 'actor' = %(user_id)s THEN ARRAY['actor'] ELSE '{}' END
            || CASE WHEN n.event -> 'users' = jsonb_build_array(%(user_id)s::text)
                    THEN jsonb_build_object('users', jsonb_build_array(%(placeholder)s::text))
                    WHEN n.event ? 'users'
                    THEN jsonb_build_object('users', (n.event -> 'users') - %(user_id)s::text)
                    ELSE '{}' END
            || CASE WHEN n.event ->> 'scope' = %(scope)s
                    THEN jsonb_build_object('scope', split_part(n.event ->> 'scope', ':', 1) || ':' || %(placeholder)s::text) ELSE '{}' END
        END
FROM named WHERE n.id = named.id

-- name: letters_naming
-- Dead letters that hold the user's id somewhere, some at a time. Letters of no app may be about any.
SELECT l.id, l.body, l.error FROM pushfan.dead_letter l
WHERE (l.app_id = %(app_id)s OR l.app_id IS NULL) AND l.id > %(after)s
  AND EXISTS (SELECT FROM unnest(%(forms)b::text[]) AS f (form)
              WHERE position(f.form IN coalesce(l.body, '')) > 0 OR position(f.form IN l.error) > 0)
ORDER BY l.id
LIMIT %(limit)s
FOR NO KEY UPDATE

-- name: scrub_letter
-- A dead letter without the user.
UPDATE pushfan.dead_letter l SET body = %(body)s, error = %(error)s WHERE l.id = %(id)s
