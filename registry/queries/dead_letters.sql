-- name: list_page
-- Dead letters, the newest first, older than a given one.
SELECT d.id, a.name AS app, d.kind, d.error, d.body, d.notification_id, d.device_id, d.at, d.replayed_as
FROM pushfan.dead_letter d LEFT JOIN pushfan.app a ON a.id = d.app_id
WHERE d.id < %(before)s AND (%(app)s::text IS NULL OR a.name = %(app)s)
  AND (%(kind)s::text IS NULL OR d.kind = %(kind)s)
  AND (%(notification_id)s::bigint IS NULL OR d.notification_id = %(notification_id)s)
  AND (%(reason)s::text IS NULL OR strpos(lower(d.error), lower(%(reason)s)) > 0)
  AND (%(older_than)s::interval IS NULL OR d.at < now() - %(older_than)s)
  AND (%(newer_than)s::interval IS NULL OR d.at > now() - %(newer_than)s)
  AND NOT (%(unreplayed)s AND d.replayed_as IS NOT NULL)
ORDER BY d.id DESC
LIMIT %(limit)s

-- name: measure
-- How many dead letters there are of some kind, and the newest: what comes later is not meant.
SELECT count(*)::bigint AS letters, coalesce(max(d.id), 0) AS newest
FROM pushfan.dead_letter d LEFT JOIN pushfan.app a ON a.id = d.app_id
WHERE (%(app)s::text IS NULL OR a.name = %(app)s)
  AND (%(kind)s::text IS NULL OR d.kind = %(kind)s)
  AND (%(notification_id)s::bigint IS NULL OR d.notification_id = %(notification_id)s)
  AND (%(reason)s::text IS NULL OR strpos(lower(d.error), lower(%(reason)s)) > 0)
  AND (%(older_than)s::interval IS NULL OR d.at < now() - %(older_than)s)
  AND (%(newer_than)s::interval IS NULL OR d.at > now() - %(newer_than)s)
  AND NOT (%(unreplayed)s AND d.replayed_as IS NOT NULL)

-- name: walk
-- The same in the order in which they came, behind a given one and up to the newest that is meant.
SELECT d.id, a.name AS app, d.kind, d.error, d.body, d.notification_id, d.device_id, d.at, d.replayed_as
FROM pushfan.dead_letter d LEFT JOIN pushfan.app a ON a.id = d.app_id
WHERE d.id > %(after)s AND d.id <= %(newest)s AND (%(app)s::text IS NULL OR a.name = %(app)s)
  AND (%(kind)s::text IS NULL OR d.kind = %(kind)s)
  AND (%(notification_id)s::bigint IS NULL OR d.notification_id = %(notification_id)s)
  AND (%(reason)s::text IS NULL OR strpos(lower(d.error), lower(%(reason)s)) > 0)
  AND (%(older_than)s::interval IS NULL OR d.at < now() - %(older_than)s)
  AND (%(newer_than)s::interval IS NULL OR d.at > now() - %(newer_than)s)
  AND NOT (%(unreplayed)s AND d.replayed_as IS NOT NULL)
ORDER BY d.id
LIMIT %(limit)s

-- name: find
-- One dead letter.
SELECT d.id, a.name AS app, d.kind, d.error, d.body, d.notification_id, d.device_id, d.at, d.replayed_as
FROM pushfan.dead_letter d LEFT JOIN pushfan.app a ON a.id = d.app_id
WHERE d.id = %(id)s

-- name: find_delivery
-- What the delivery of a dead letter said, and to which device: nulls where that is not kept any more.
SELECT n.event, n.cancelled_at IS NOT NULL AS is_cancelled, coalesce(n.expires_at < now(), true) AS is_expired,
       v.user_id, coalesce(v.state <> 'retired', false) AS is_in_use
FROM pushfan.dead_letter d
LEFT JOIN pushfan.notification n ON n.id = d.notification_id
LEFT JOIN pushfan.device v ON v.id = d.device_id
WHERE d.id = %(id)s

-- name: note_replay
-- Say as what a dead letter was taken in, once.
UPDATE pushfan.dead_letter d SET replayed_as = %(notification_id)s
WHERE d.id = %(id)s AND d.replayed_as IS NULL

-- name: drop
-- Forget some dead letters.
DELETE FROM pushfan.dead_letter d WHERE d.id = ANY (%(ids)s)
