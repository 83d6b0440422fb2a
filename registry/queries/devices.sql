-- name: enter
-- Register beside others. The key share keeps the channel; removing one waits.
SELECT c.id, c.app_id, pg_advisory_xact_lock_shared(hashtext('pushfan.install'), c.id)
FROM pushfan.channel c WHERE c.id = ANY (%(channel_ids)b::integer[])
ORDER BY c.id
FOR KEY SHARE

-- name: enter_alone
-- Register thousands: a lock for each address would exceed the lock table, so nobody else registers meanwhile.
SELECT c.id, c.app_id, pg_advisory_xact_lock(hashtext('pushfan.install'), c.id)
FROM pushfan.channel c WHERE c.id = ANY (%(channel_ids)b::integer[])
ORDER BY c.id
FOR KEY SHARE

-- name: lock_addresses
-- One registration at a time for a key and for a token. Given sorted, taken in that order.
SELECT pg_advisory_xact_lock(a.lock) FROM unnest(%(locks)b::bigint[]) AS a (lock)

-- name: find_touched
-- The devices in use with one of the keys or tokens, locked in order, and the instant of the calls, which is on
-- the only row when there are none. Subqueries and not joins: a batch of 5,000 made the planner hash the table.
SELECT clock.now, d.*
FROM (SELECT clock_timestamp() AS now) AS clock
LEFT JOIN LATERAL (
    SELECT f.id, f.app_id, f.channel_id, f.user_id, f.device_key, f.token, f.address_kind, f.locale, f.time_zone,
           f.app_version, f.registered_at, f.seen_at, f.state, f.state_reason, f.state_changed_at
    FROM pushfan.device f
    WHERE f.state <> 'retired' AND f.id = ANY (ARRAY(
        SELECT (SELECT k.id FROM pushfan.device k
                WHERE k.channel_id = a.channel_id AND k.device_key = a.device_key AND k.state <> 'retired')
        FROM unnest(%(channel_ids)b::integer[], %(device_keys)b::text[]) AS a (channel_id, device_key)
        UNION ALL
        SELECT (SELECT t.id FROM pushfan.device t
                WHERE t.channel_id = a.channel_id AND t.token = a.token AND t.state <> 'retired')
        FROM unnest(%(channel_ids)b::integer[], %(tokens)b::text[]) AS a (channel_id, token)))
    ORDER BY f.id
    FOR NO KEY UPDATE
) AS d ON true

-- name: set_aside
-- Take rows out of the unique indexes for a moment: `save` puts back those that stay in use.
UPDATE pushfan.device d SET state = 'retired' WHERE d.id = ANY (%(ids)b::bigint[])

-- name: save
-- Devices as the calls left them, old ones and new ones. An UPDATE with a join made the planner hash the table;
-- COPY was no faster for new ones. The user, the channel and the app are not among what can change.
INSERT INTO pushfan.device (
    id, app_id, channel_id, user_id, device_key, token, address_kind, locale, time_zone, app_version,
    registered_at, seen_at, state, state_reason, state_changed_at
) OVERRIDING SYSTEM VALUE
SELECT s.id, s.app_id, s.channel_id, s.user_id, s.device_key, s.token, s.address_kind, s.locale, s.time_zone,
       s.app_version, s.registered_at, s.seen_at, s.state, s.state_reason, s.state_changed_at
FROM unnest(
    %(id)b::bigint[], %(app_id)b::integer[], %(channel_id)b::integer[], %(user_id)b::text[], %(device_key)b::text[],
    %(token)b::text[], %(address_kind)b::text[], %(locale)b::text[], %(time_zone)b::text[], %(app_version)b::text[],
    %(registered_at)b::timestamptz[], %(seen_at)b::timestamptz[], %(state)b::text[], %(state_reason)b::text[],
    %(state_changed_at)b::timestamptz[]
) AS s (id, app_id, channel_id, user_id, device_key, token, address_kind, locale, time_zone, app_version,
        registered_at, seen_at, state, state_reason, state_changed_at)
ON CONFLICT ON CONSTRAINT device_pkey DO UPDATE
SET device_key = excluded.device_key, token = excluded.token, address_kind = excluded.address_kind,
    locale = excluded.locale, time_zone = excluded.time_zone, app_version = excluded.app_version,
    registered_at = excluded.registered_at, seen_at = excluded.seen_at, state = excluded.state,
    state_reason = excluded.state_reason, state_changed_at = excluded.state_changed_at

-- name: next_ids
-- Ids before the rows, so that feedback can name devices of the same batch.
SELECT nextval('pushfan.device_id_seq') AS id FROM generate_series(1, %(count)s)

-- name: write_feedback
-- What happened to tokens, in the order in which it happened.
INSERT INTO pushfan.feedback (app_id, channel_id, device_id, user_id, device_key, kind, reason, token_hash)
SELECT n.app_id, n.channel_id, n.device_id, n.user_id, n.device_key, n.kind, n.reason, n.token_hash
FROM unnest(
    %(app_ids)b::integer[], %(channel_ids)b::integer[], %(device_ids)b::bigint[], %(user_ids)b::text[],
    %(device_keys)b::text[], %(kinds)b::text[], %(reasons)b::text[], %(token_hashes)b::text[]
) WITH ORDINALITY AS n (app_id, channel_id, device_id, user_id, device_key, kind, reason, token_hash, place)
ORDER BY n.place

-- name: lock_matching
-- The devices that an uninstall names, locked in order. Keys and tokens are indexed by channel.
SELECT d.id FROM pushfan.device d
WHERE d.channel_id IN (SELECT c.id FROM pushfan.channel c WHERE c.app_id = %(app_id)s) AND d.state <> 'retired'
  AND (%(channel_id)s::integer IS NULL OR d.channel_id = %(channel_id)s)
  AND (%(device_key)s::text IS NULL OR d.device_key = %(device_key)s)
  AND (%(token)s::text IS NULL OR d.token = %(token)s)
  AND (%(user_id)s::text IS NULL OR d.user_id = %(user_id)s)
ORDER BY d.id
FOR NO KEY UPDATE

-- name: uninstall
-- The locked devices leave, those of them that still are what was named.
WITH gone AS (
    UPDATE pushfan.device d
    SET state = 'retired', state_reason = 'uninstalled', state_changed_at = clock_timestamp()
    WHERE d.id = ANY (%(ids)b::bigint[]) AND d.state <> 'retired'
      AND (%(device_key)s::text IS NULL OR d.device_key = %(device_key)s)
      AND (%(token)s::text IS NULL OR d.token = %(token)s)
    RETURNING d.id, d.app_id, d.channel_id, d.user_id, d.device_key, d.token, d.state_reason
), told AS (
    INSERT INTO pushfan.feedback (app_id, channel_id, device_id, user_id, device_key, kind, reason, token_hash)
    SELECT g.app_id, g.channel_id, g.id, g.user_id, g.device_key, 'retired', g.state_reason,
           left(encode(sha256(convert_to(g.token, 'UTF8')), 'hex'), 12)
    FROM gone g ORDER BY g.id
)
SELECT g.id FROM gone g ORDER BY g.id

-- name: get
-- One device of an app.
SELECT d.id, d.app_id, d.channel_id, d.user_id, d.device_key, d.token, d.address_kind, d.locale, d.time_zone,
       d.app_version, d.registered_at, d.seen_at, d.state, d.state_reason, d.state_changed_at,
       c.name AS channel, c.provider
FROM pushfan.device d JOIN pushfan.channel c ON c.id = d.channel_id
WHERE d.app_id = %(app_id)s AND d.id = %(device_id)s

-- name: find
-- A user's devices in use with one key.
SELECT d.id, d.app_id, d.channel_id, d.user_id, d.device_key, d.token, d.address_kind, d.locale, d.time_zone,
       d.app_version, d.registered_at, d.seen_at, d.state, d.state_reason, d.state_changed_at,
       c.name AS channel, c.provider
FROM pushfan.device d JOIN pushfan.channel c ON c.id = d.channel_id
WHERE d.app_id = %(app_id)s AND d.user_id = %(user_id)s AND d.state IN ('active', 'suspect')
  AND d.device_key = %(device_key)s
ORDER BY d.id

-- name: list_by_user
-- A user's devices.
SELECT d.id, d.app_id, d.channel_id, d.user_id, d.device_key, d.token, d.address_kind, d.locale, d.time_zone,
       d.app_version, d.registered_at, d.seen_at, d.state, d.state_reason, d.state_changed_at,
       c.name AS channel, c.provider
FROM pushfan.device d JOIN pushfan.channel c ON c.id = d.channel_id
WHERE d.app_id = %(app_id)s AND d.user_id = %(user_id)s AND (%(with_retired)s OR d.state IN ('active', 'suspect'))
ORDER BY d.id
LIMIT %(limit)s

-- name: hold_generation
-- Keep the channel's circuit and credentials as they are, if they are still those that were sent under.
SELECT c.id FROM pushfan.channel c
WHERE c.id = %(channel_id)s AND c.circuit_generation = %(generation)s
FOR SHARE

-- name: lock
-- Devices that answers are about, in order: 35 of 600 statements that took them as they came deadlocked.
SELECT d.id FROM pushfan.device d WHERE d.id = ANY (%(ids)b::bigint[]) ORDER BY d.id FOR NO KEY UPDATE

-- name: retire
-- Dead tokens leave, unless the device has another by now or has registered this one since.
WITH gone AS (
    UPDATE pushfan.device d
    SET state = 'retired', state_reason = a.reason, state_changed_at = clock_timestamp()
    FROM unnest(%(ids)b::bigint[], %(tokens)b::text[], %(instants)b::timestamptz[], %(reasons)b::text[])
        AS a (id, token, at, reason)
    WHERE d.id = a.id AND d.token = a.token AND d.registered_at <= a.at AND d.state <> 'retired'
    RETURNING d.id, d.app_id, d.channel_id, d.user_id, d.device_key, d.token, d.state_reason
), told AS (
    INSERT INTO pushfan.feedback (app_id, channel_id, device_id, user_id, device_key, kind, reason, token_hash)
    SELECT g.app_id, g.channel_id, g.id, g.user_id, g.device_key, 'retired', g.state_reason,
           left(encode(sha256(convert_to(g.token, 'UTF8')), 'hex'), 12)
    FROM gone g ORDER BY g.id
)
SELECT g.id FROM gone g

-- name: mark_suspect
-- Doubted tokens are watched, unless the device has another by now or has registered this one since.
UPDATE pushfan.device d
SET state = 'suspect', state_reason = a.reason, state_changed_at = clock_timestamp()
FROM unnest(%(ids)b::bigint[], %(tokens)b::text[], %(instants)b::timestamptz[], %(reasons)b::text[])
    AS a (id, token, at, reason)
WHERE d.id = a.id AND d.token = a.token AND d.registered_at <= a.at AND d.state = 'active'
RETURNING d.id

-- name: confirm
-- A vendor took a push to the very token that was doubted.
UPDATE pushfan.device d
SET state = 'active', state_reason = NULL, state_changed_at = clock_timestamp()
FROM unnest(%(ids)b::bigint[], %(tokens)b::text[], %(instants)b::timestamptz[], %(reasons)b::text[])
    AS a (id, token, at, reason)
WHERE d.id = a.id AND d.token = a.token AND d.state = 'suspect'
RETURNING d.id
