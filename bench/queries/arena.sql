-- name: durability
-- The settings without which a figure would be worth nothing.
SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes')

-- name: checkpoint
-- So that a load pays for its own writes, and not for those of the preparations.
CHECKPOINT

-- name: count_finished
-- How many events with ids of a common beginning have ended.
SELECT count(*) FROM pushfan.notification n
WHERE n.app_id = %(app_id)s AND starts_with(n.key, %(prefix)s) AND n.finished_at IS NOT NULL

-- name: recorded_at
-- When the acceptance of each event of a common beginning was recorded.
SELECT n.key, d.at, d.outcome::text AS outcome
FROM pushfan.notification n JOIN pushfan.delivery d ON d.notification_id = n.id
WHERE n.app_id = %(app_id)s AND starts_with(n.key, %(prefix)s)
