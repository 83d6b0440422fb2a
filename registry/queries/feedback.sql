-- name: read
-- The next rows whose transaction and all older ones have ended.
SELECT f.xid::text::bigint AS xid, f.id, f.device_id, f.user_id, f.device_key, f.channel_id, c.name AS channel,
       f.kind, f.reason, f.token_hash, f.at
FROM pushfan.feedback f LEFT JOIN pushfan.channel c ON c.id = f.channel_id
WHERE f.app_id = %(app_id)s AND (f.xid, f.id) > (%(xid)s::text::xid8, %(id)s)
  AND f.xid < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY f.xid, f.id
LIMIT %(limit)s
