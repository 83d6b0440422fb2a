-- name: hold
-- Nobody promotes these pseudo users until the transaction ends. In order, since others may hold the same ones.
SELECT pg_advisory_xact_lock_shared(hashtextextended('pushfan.pseudo ' || u.id, 0))
FROM (SELECT DISTINCT h.id FROM unnest(%(users)b::text[]) AS h (id) ORDER BY h.id) AS u

-- name: promoted
-- Which of them were promoted, of the apps of some channels or of one app.
SELECT p.pseudo_id FROM pushfan.promotion p
WHERE p.pseudo_id = ANY (%(users)b::text[])
  AND p.app_id IN (SELECT c.app_id FROM pushfan.channel c WHERE c.id = ANY (%(channel_ids)b::integer[])
                   UNION SELECT %(app_id)s::integer)
ORDER BY p.pseudo_id
LIMIT 1

-- name: lock
-- One promotion of a pseudo user at a time, and no registration beside it.
SELECT pg_advisory_xact_lock(hashtextextended('pushfan.pseudo ' || %(pseudo)s::text, 0))

-- name: stop_planners
-- No page is planned meanwhile: one that began before would see the user as it was, and the next as it is.
SELECT pg_advisory_xact_lock(hashtext('pushfan.promote'), %(app_id)s)

-- name: find
-- What became of a pseudo user.
SELECT p.user_id FROM pushfan.promotion p WHERE p.app_id = %(app_id)s AND p.pseudo_id = %(pseudo)s

-- name: half_planned
-- A fan-out to the pseudo user that has planned some of its users and not yet all.
SELECT n.id FROM pushfan.notification n
WHERE n.app_id = %(app_id)s AND n.planned_at IS NULL AND n.finished_at IS NULL AND n.planned_user <> ''
  AND (%(pseudo)s = ANY (n.recipients) OR n.target_id IN (
      SELECT s.target_id FROM pushfan.subscription s WHERE s.app_id = %(app_id)s AND s.user_id = %(pseudo)s))
LIMIT 1

-- name: move_devices
-- The devices, retired ones included, are the user's now. The rows stay: what is planned for them is delivered.
WITH held AS MATERIALIZED (
    SELECT d.id FROM pushfan.device d
    WHERE d.app_id = %(app_id)s AND d.user_id = %(pseudo)s
    ORDER BY d.id
    FOR NO KEY UPDATE
)
UPDATE pushfan.device d SET user_id = %(user)s FROM held WHERE d.id = held.id
RETURNING d.state <> 'retired' AS is_used

-- name: copy_subscriptions
-- The user is subscribed to what the pseudo user was.
INSERT INTO pushfan.subscription (target_id, user_id, app_id, created_at)
SELECT s.target_id, %(user)s, s.app_id, s.created_at FROM pushfan.subscription s
WHERE s.app_id = %(app_id)s AND s.user_id = %(pseudo)s
ORDER BY s.target_id
ON CONFLICT ON CONSTRAINT subscription_pkey DO NOTHING

-- name: drop_subscriptions
DELETE FROM pushfan.subscription s WHERE s.app_id = %(app_id)s AND s.user_id = %(pseudo)s

-- name: copy_memberships
-- The user belongs to the groups that the pseudo user belonged to.
INSERT INTO pushfan.group_member (app_id, group_id, user_id, created_at)
SELECT m.app_id, m.group_id, %(user)s, m.created_at FROM pushfan.group_member m
WHERE m.app_id = %(app_id)s AND m.user_id = %(pseudo)s
ORDER BY m.group_id
ON CONFLICT ON CONSTRAINT group_member_pkey DO NOTHING

-- name: drop_memberships
DELETE FROM pushfan.group_member m WHERE m.app_id = %(app_id)s AND m.user_id = %(pseudo)s

-- name: move_targets
-- Its own buckets and topics are the user's, unless that has one of this name.
UPDATE pushfan.target t SET scope = 'user:' || %(user)s::text
WHERE t.app_id = %(app_id)s AND t.kind IN ('bucket', 'topic') AND t.scope = 'user:' || %(pseudo)s::text
  AND NOT EXISTS (
      SELECT FROM pushfan.target o
      WHERE o.app_id = t.app_id AND o.kind = t.kind AND o.scope = 'user:' || %(user)s::text AND o.name = t.name)

-- name: move_feedback
UPDATE pushfan.feedback f SET user_id = %(user)s WHERE f.app_id = %(app_id)s AND f.user_id = %(pseudo)s

-- name: readdress
-- What was taken in for the pseudo user and waits for its planner goes to the user, and what it caused not back to it.
UPDATE pushfan.notification n
SET recipients = CASE WHEN %(pseudo)s = ANY (n.recipients) THEN ARRAY(
        SELECT DISTINCT u.user_id COLLATE "C"
        FROM unnest(array_replace(n.recipients, %(pseudo)s COLLATE "C", %(user)s COLLATE "C")) AS u (user_id) ORDER BY 1)
        ELSE n.recipients END,
    excluded_user = CASE WHEN n.excluded_user = %(pseudo)s THEN %(user)s ELSE n.excluded_user END
WHERE n.app_id = %(app_id)s AND n.planned_at IS NULL AND n.finished_at IS NULL
  AND (%(pseudo)s = ANY (n.recipients) OR n.excluded_user = %(pseudo)s)

-- name: record
-- From now on nothing is registered for the pseudo user.
INSERT INTO pushfan.promotion (app_id, pseudo_id, user_id) VALUES (%(app_id)s, %(pseudo)s, %(user)s)
ON CONFLICT ON CONSTRAINT promotion_pkey DO NOTHING

-- name: list_by_user
-- The pseudo users that a user was before.
SELECT p.pseudo_id FROM pushfan.promotion p
WHERE p.app_id = %(app_id)s AND p.user_id = %(user)s
ORDER BY p.pseudo_id

-- name: forget
-- Who was who is not told any more.
DELETE FROM pushfan.promotion p
WHERE p.app_id = %(app_id)s AND (p.user_id = %(user)s OR p.pseudo_id = %(user)s)
