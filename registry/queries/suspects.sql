-- name: to_judge
-- Channels with suspects or many answers. A stopped channel learns nothing.
SELECT c.id FROM pushfan.channel c
WHERE c.circuit = 'closed' AND (c.accepted + c.doubted >= %(full)s OR EXISTS (
    SELECT FROM pushfan.device d WHERE d.channel_id = c.id AND d.state = 'suspect'))
ORDER BY c.id

-- name: lock_channel
-- The channel's window, held while it is judged: nobody counts, stops or corrects meanwhile.
SELECT c.accepted, c.doubted, c.health_since, c.circuit_generation
FROM pushfan.channel c WHERE c.id = %(channel_id)s AND c.circuit = 'closed'
FOR NO KEY UPDATE

-- name: count
-- The suspects now, since before the window began, and those of them that are old enough.
SELECT count(*)::integer AS suspects,
       count(*) FILTER (WHERE d.state_changed_at < %(since)s)::integer AS before,
       count(*) FILTER (WHERE d.state_changed_at < %(since)s
                          AND d.state_changed_at <= clock_timestamp() - %(age)s)::integer AS ripe
FROM pushfan.device d WHERE d.channel_id = %(channel_id)s AND d.state = 'suspect'

-- name: retire
-- Suspects that are believed dead leave, some at a time.
WITH held AS MATERIALIZED (
    SELECT d.id FROM pushfan.device d
    WHERE d.channel_id = %(channel_id)s AND d.state = 'suspect'
      AND d.state_changed_at < coalesce(%(since)s::timestamptz, 'infinity')
      AND d.state_changed_at <= clock_timestamp() - %(age)s
    ORDER BY d.id
    LIMIT %(limit)s
    FOR NO KEY UPDATE
), gone AS (
    UPDATE pushfan.device d
    SET state = 'retired', state_reason = 'suspect: ' || d.state_reason, state_changed_at = clock_timestamp()
    FROM held WHERE d.id = held.id AND d.state = 'suspect'
    RETURNING d.id, d.app_id, d.channel_id, d.user_id, d.device_key, d.token, d.state_reason
)
INSERT INTO pushfan.feedback (app_id, channel_id, device_id, user_id, device_key, kind, reason, token_hash)
SELECT g.app_id, g.channel_id, g.id, g.user_id, g.device_key, 'retired', g.state_reason,
       left(encode(sha256(convert_to(g.token, 'UTF8')), 'hex'), 12)
FROM gone g ORDER BY g.id

-- name: begin
-- A new window.
UPDATE pushfan.channel c SET health_since = clock_timestamp(), accepted = 0, doubted = 0 WHERE c.id = %(channel_id)s

-- name: reasons
-- What vendors said about the suspects, the most frequent first.
SELECT coalesce(d.state_reason, 'no reason') AS reason, count(*)::integer AS devices
FROM pushfan.device d WHERE d.channel_id = %(channel_id)s AND d.state = 'suspect'
GROUP BY 1 ORDER BY 2 DESC, 1
LIMIT %(limit)s
