-- name: list_page
-- Dead letters, the newest first, older than a given one.
SELECT d.id, a.name AS app, d.kind, d.error, d.body, d.notification_id, d.device_id, d.at, d.replayed_as
FROM pushfan.dead_letter d LEFT JOIN pushfan.app a ON a.id = d.app_id
WHERE d.id < %(before)s AND (%(app)s::text IS NULL OR a.name = %(app)s)
  AND (%(kind)s::text IS NULL OR d.kind = %(kind)s)
  AND (%(notification_id)s::bigint IS NULL OR d.notification_id = %(notification_id)s)
ORDER BY d.id DESC
LIMIT %(limit)s

-- name: find
-- One dead letter.
SELECT d.id, a.name AS app, d.kind, d.error, d.body, d.notification_id, d.device_id, d.at, d.replayed_as
FROM pushfan.dead_letter d LEFT JOIN pushfan.app a ON a.id = d.app_id
WHERE d.id = %(id)s
