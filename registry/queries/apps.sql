-- name: add
-- A new tenant; no row when the name is taken.
INSERT INTO pushfan.app (name) VALUES (%(name)s)
ON CONFLICT ON CONSTRAINT app_name_key DO NOTHING
RETURNING id, name, created_at

-- name: get
-- One tenant by the name that events use.
SELECT a.id, a.name, a.created_at FROM pushfan.app a WHERE a.name = %(name)s

-- name: list_all
-- All tenants.
SELECT a.id, a.name, a.created_at FROM pushfan.app a ORDER BY a.name COLLATE "C"

-- name: remove_deliveries
-- Some of an app's deliveries.
WITH held AS MATERIALIZED (
    SELECT d.notification_id, d.device_id
    FROM pushfan.notification n JOIN pushfan.delivery d ON d.notification_id = n.id
    WHERE n.app_id = %(app_id)s
    LIMIT %(limit)s
)
DELETE FROM pushfan.delivery d USING held
WHERE d.notification_id = held.notification_id AND d.device_id = held.device_id

-- name: remove_feedback
-- Some of what happened to its tokens.
WITH held AS MATERIALIZED (
    SELECT f.xid, f.id FROM pushfan.feedback f WHERE f.app_id = %(app_id)s LIMIT %(limit)s
)
DELETE FROM pushfan.feedback f USING held WHERE f.xid = held.xid AND f.id = held.id

-- name: remove_notifications
-- Some of its notifications, whose deliveries are gone.
WITH held AS MATERIALIZED (
    SELECT n.id FROM pushfan.notification n WHERE n.app_id = %(app_id)s ORDER BY n.id LIMIT %(limit)s
)
DELETE FROM pushfan.notification n USING held WHERE n.id = held.id

-- name: remove
-- The tenant itself; keys, targets and subscriptions go with it.
WITH letters AS (
    DELETE FROM pushfan.dead_letter l WHERE l.app_id = %(app_id)s
)
DELETE FROM pushfan.app a WHERE a.id = %(app_id)s
