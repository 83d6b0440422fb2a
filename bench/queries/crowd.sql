-- name: add_devices
-- Users <name>-00000001 and on, each with one device, at the channels in turn.
INSERT INTO pushfan.device (app_id, channel_id, user_id, device_key, token)
SELECT c.app_id, c.id, v.user_id, v.user_id || '-phone',
       CASE c.provider WHEN 'fcm' THEN left(v.digest, 22) || ':APA91b' || v.digest || v.digest
                       WHEN 'jpush' THEN left(v.digest, 19)
                       ELSE v.digest END
FROM (
    SELECT number, user_id, encode(sha256(convert_to(user_id, 'UTF8')), 'hex') AS digest
    FROM (
        SELECT number, %(name)s || '-' || lpad(number::text, 8, '0') AS user_id
        FROM generate_series(1, %(size)s) AS number
    ) AS named
) AS v
JOIN pushfan.channel c ON c.id = (%(channels)s::integer[])[v.number %% cardinality(%(channels)s::integer[]) + 1]
ORDER BY v.number

-- name: tidy_devices
-- What autovacuum would do a minute later, in the middle of a load.
VACUUM (ANALYZE) pushfan.device

-- name: add_topic
-- A topic of the app.
INSERT INTO pushfan.target (app_id, kind, name) VALUES (%(app_id)s, 'topic', %(topic)s) ON CONFLICT DO NOTHING

-- name: add_subscriptions
-- The first users of a crowd.
INSERT INTO pushfan.subscription (target_id, user_id, app_id)
SELECT t.id, %(name)s || '-' || lpad(number::text, 8, '0'), t.app_id
FROM pushfan.target t CROSS JOIN generate_series(1, %(size)s) AS number
WHERE t.app_id = %(app_id)s AND t.kind = 'topic' AND t.name = %(topic)s

-- name: tidy_subscriptions
-- What autovacuum would do a minute later, in the middle of a load.
VACUUM (ANALYZE) pushfan.subscription

-- name: tokens
-- The tokens of a channel's first devices.
SELECT d.token FROM pushfan.device d WHERE d.channel_id = %(channel_id)s ORDER BY d.id LIMIT %(limit)s
