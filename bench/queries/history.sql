-- name: notifications
-- Old notifications for a history, finished, a hundred a day.
INSERT INTO pushfan.notification
    (id, app_id, key, kind, event, lane, is_lane_fixed, target_id, recipients, excluded_providers, expires_at,
     planned_at, finished_at, users, devices, accepted)
SELECT pushfan.notification_id_at(now() - interval '15 minutes' * number) + number, %(app_id)s, 'history-' || number,
       'topic', NULL, 'bulk', false, NULL, NULL, '{}', now(), now(), now(), %(each)s, %(each)s, %(each)s
FROM generate_series(1, %(size)s) AS number

-- name: partitions
-- The days of the history.
SELECT pushfan.make_partitions(0)

-- name: deliveries
-- What became of them: each to the first devices of the app.
INSERT INTO pushfan.delivery (notification_id, device_id, at, outcome, attempts, provider_id)
SELECT n.id, v.id, n.finished_at, 'accepted', 1, 'projects/example/messages/0:' || n.id || v.id
FROM (SELECT d.id FROM pushfan.device d WHERE d.app_id = %(app_id)s ORDER BY d.id LIMIT %(each)s) AS v
CROSS JOIN pushfan.notification n
WHERE n.app_id = %(app_id)s AND starts_with(n.key, 'history-')
ORDER BY n.id, v.id

-- name: tidy
-- What autovacuum would have done.
VACUUM (ANALYZE) pushfan.delivery

-- name: some_notifications
-- A few notifications from all over the history.
SELECT n.id FROM pushfan.notification n WHERE n.app_id = %(app_id)s AND starts_with(n.key, 'history-')
ORDER BY md5(n.key) LIMIT %(limit)s

-- name: some_users
-- A few users who have a history.
SELECT v.user_id FROM (
    SELECT d.id, d.user_id FROM pushfan.device d WHERE d.app_id = %(app_id)s ORDER BY d.id LIMIT %(each)s
) AS v ORDER BY md5(v.user_id) LIMIT %(limit)s
