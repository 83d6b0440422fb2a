-- name: serialize
-- Two who make keys of one name take turns.
SELECT pg_advisory_xact_lock(hashtextextended('pushfan key ' || coalesce(%(app_id)s::text, '') || ' ' || %(name)s, 0))

-- name: add
-- A new key; its secret stays with the caller.
INSERT INTO pushfan.api_key AS k (app_id, name, prefix, hash, roles, lanes)
SELECT a.id, %(name)s, %(prefix)s, %(hash)s, %(roles)s, %(lanes)s
FROM (SELECT %(app_id)s::integer AS id) AS a
RETURNING k.id, k.app_id, (SELECT a.name FROM pushfan.app a WHERE a.id = k.app_id) AS app, k.name, k.prefix, k.roles,
          k.lanes, k.created_at, k.last_used_at, k.revoked_at

-- name: active
-- The keys of one name that still open something, the oldest first.
SELECT k.id, k.app_id, a.name AS app, k.name, k.prefix, k.roles, k.lanes, k.created_at, k.last_used_at, k.revoked_at
FROM pushfan.api_key k LEFT JOIN pushfan.app a ON a.id = k.app_id
WHERE k.app_id IS NOT DISTINCT FROM %(app_id)s AND k.name = %(name)s
  AND (k.revoked_at IS NULL OR k.revoked_at > now())
ORDER BY k.created_at, k.id

-- name: find
-- The key that a secret belongs to, if it still opens something.
SELECT k.id, k.app_id, a.name AS app, k.name, k.prefix, k.roles, k.lanes, k.created_at, k.last_used_at, k.revoked_at
FROM pushfan.api_key k LEFT JOIN pushfan.app a ON a.id = k.app_id
WHERE k.hash = %(hash)s AND (k.revoked_at IS NULL OR k.revoked_at > now())

-- name: list_all
-- Keys by app and name, of one app or of all.
SELECT k.id, k.app_id, a.name AS app, k.name, k.prefix, k.roles, k.lanes, k.created_at, k.last_used_at, k.revoked_at
FROM pushfan.api_key k LEFT JOIN pushfan.app a ON a.id = k.app_id
WHERE %(app_id)s::integer IS NULL OR k.app_id = %(app_id)s
ORDER BY a.name COLLATE "C" NULLS FIRST, k.name COLLATE "C", k.created_at, k.id

-- name: revoke
-- A key opens nothing from an instant on; the earliest that was ever said holds.
UPDATE pushfan.api_key k SET revoked_at = least(k.revoked_at, now() + %(grace)s)
FROM (SELECT r.id, a.name AS app FROM pushfan.api_key r LEFT JOIN pushfan.app a ON a.id = r.app_id
      WHERE r.prefix = %(prefix)s AND (%(app_id)s::integer IS NULL OR r.app_id = %(app_id)s)) AS o
WHERE k.id = o.id
RETURNING k.id, k.app_id, o.app, k.name, k.prefix, k.roles, k.lanes, k.created_at, k.last_used_at, k.revoked_at

-- name: note_use
-- When keys were used last.
UPDATE pushfan.api_key k SET last_used_at = u.at
FROM unnest(%(ids)s::integer[], %(instants)s::timestamptz[]) AS u (id, at)
WHERE k.id = u.id AND (k.last_used_at IS NULL OR k.last_used_at < u.at)
