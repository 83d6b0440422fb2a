-- name: make_targets
-- Targets that nobody was ever subscribed to begin now. In order, since two callers may begin the same ones.
INSERT INTO pushfan.target (app_id, kind, scope, name)
SELECT DISTINCT %(app_id)s::integer, n.kind, n.scope, n.name
FROM unnest(%(kinds)b::text[], %(scopes)b::text[], %(names)b::text[]) AS n (kind, scope, name)
WHERE NOT EXISTS (
    SELECT FROM pushfan.target t
    WHERE t.app_id = %(app_id)s AND t.kind = n.kind AND t.scope = n.scope AND t.name = n.name)
ORDER BY n.kind, n.scope, n.name
ON CONFLICT ON CONSTRAINT target_name_key DO NOTHING

-- name: subscribe
-- Users receive what targets say from now on. In order, for the same reason.
INSERT INTO pushfan.subscription (target_id, user_id, app_id)
SELECT t.id, n.user_id, t.app_id
FROM unnest(%(kinds)b::text[], %(scopes)b::text[], %(names)b::text[], %(users)b::text[])
    AS n (kind, scope, name, user_id)
JOIN pushfan.target t ON t.app_id = %(app_id)s AND t.kind = n.kind AND t.scope = n.scope AND t.name = n.name
ORDER BY t.id, n.user_id COLLATE "C"
ON CONFLICT ON CONSTRAINT subscription_pkey DO NOTHING

-- name: unsubscribe
-- A user receives no more.
DELETE FROM pushfan.subscription s
USING pushfan.target t
WHERE t.app_id = %(app_id)s AND t.kind = %(kind)s AND t.scope = %(scope)s AND t.name = %(name)s
  AND s.target_id = t.id AND s.user_id = %(user_id)s

-- name: is_subscribed
-- Whether a user receives.
SELECT s.target_id
FROM pushfan.target t JOIN pushfan.subscription s ON s.target_id = t.id
WHERE t.app_id = %(app_id)s AND t.kind = %(kind)s AND t.scope = %(scope)s AND t.name = %(name)s
  AND s.user_id = %(user_id)s

-- name: list_targets
-- A page of targets with how many users each has.
SELECT t.kind, t.scope, t.name, t.created_at, t.admits, t.senders,
       (SELECT count(*) FROM pushfan.subscription s WHERE s.target_id = t.id)::integer AS users
FROM pushfan.target t
WHERE t.app_id = %(app_id)s AND (%(only)s::text IS NULL OR t.kind = %(only)s)
  AND (t.kind, t.scope, t.name) > (%(kind)s, %(scope)s, %(name)s)
ORDER BY t.kind, t.scope, t.name
LIMIT %(limit)s

-- name: list_subscribers
-- A page of a target's users.
SELECT s.user_id
FROM pushfan.target t JOIN pushfan.subscription s ON s.target_id = t.id
WHERE t.app_id = %(app_id)s AND t.kind = %(kind)s AND t.scope = %(scope)s AND t.name = %(name)s
  AND s.user_id > %(after)s
ORDER BY s.user_id
LIMIT %(limit)s

-- name: list_by_user
-- A page of what a user is subscribed to.
SELECT t.kind, t.scope, t.name, s.created_at
FROM pushfan.subscription s JOIN pushfan.target t ON t.id = s.target_id
WHERE s.app_id = %(app_id)s AND s.user_id = %(user_id)s
  AND (t.kind, t.scope, t.name) > (%(kind)s, %(scope)s, %(name)s)
ORDER BY t.kind, t.scope, t.name
LIMIT %(limit)s

-- name: put_target
-- A target begins, or gets other rules.
INSERT INTO pushfan.target AS t (app_id, kind, scope, name, admits, senders)
VALUES (%(app_id)s, %(kind)s, %(scope)s, %(name)s, %(admits)s, %(senders)s)
ON CONFLICT ON CONSTRAINT target_name_key DO UPDATE SET admits = excluded.admits, senders = excluded.senders
RETURNING t.created_at = now() AS is_new

-- name: get_target
-- One target with how many users it has.
SELECT t.kind, t.scope, t.name, t.created_at, t.admits, t.senders,
       (SELECT count(*) FROM pushfan.subscription s WHERE s.target_id = t.id)::integer AS users
FROM pushfan.target t
WHERE t.app_id = %(app_id)s AND t.kind = %(kind)s AND t.scope = %(scope)s AND t.name = %(name)s

-- name: get_rules
-- Who may subscribe itself to a target, and in whose name may be sent.
SELECT t.admits, t.senders FROM pushfan.target t
WHERE t.app_id = %(app_id)s AND t.kind = %(kind)s AND t.scope = %(scope)s AND t.name = %(name)s

-- name: remove_scope_subscribers
-- Some of those who are subscribed to what belongs to one.
WITH held AS MATERIALIZED (
    SELECT s.target_id, s.user_id
    FROM pushfan.target t JOIN pushfan.subscription s ON s.target_id = t.id
    WHERE t.app_id = %(app_id)s AND t.kind IN ('bucket', 'topic') AND t.scope = %(scope)s
    ORDER BY s.target_id, s.user_id
    LIMIT %(limit)s
    FOR UPDATE OF s
)
DELETE FROM pushfan.subscription s USING held WHERE s.target_id = held.target_id AND s.user_id = held.user_id

-- name: remove_scope
-- The buckets and topics of one.
DELETE FROM pushfan.target t
WHERE t.app_id = %(app_id)s AND t.kind IN ('bucket', 'topic') AND t.scope = %(scope)s

-- name: remove_subscribers
-- Some of a target's subscriptions.
WITH held AS MATERIALIZED (
    SELECT s.target_id, s.user_id
    FROM pushfan.target t JOIN pushfan.subscription s ON s.target_id = t.id
    WHERE t.app_id = %(app_id)s AND t.kind = %(kind)s AND t.scope = %(scope)s AND t.name = %(name)s
    ORDER BY s.target_id, s.user_id
    LIMIT %(limit)s
    FOR UPDATE OF s
)
DELETE FROM pushfan.subscription s USING held WHERE s.target_id = held.target_id AND s.user_id = held.user_id

-- name: remove_target
-- A target, whose subscriptions are gone.
DELETE FROM pushfan.target t
WHERE t.app_id = %(app_id)s AND t.kind = %(kind)s AND t.scope = %(scope)s AND t.name = %(name)s
