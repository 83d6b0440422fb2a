-- name: dispatch
-- Pick the chunks to publish now: for each channel and lane as many as its window has room for, none where the
-- channel's rate is used up, one where its circuit is probing. A chunk is out while it is leased or while its message
-- may still be on its way (ready_at lies ahead); for a probe what was out before the circuit opened does not count:
-- its owners only wait for answers. A message that was lost is followed by another after 5 s, then 10,
-- 20, … 80 s, so that a queue without workers does not grow.
WITH lanes AS MATERIALIZED (
    SELECT lane, pushfan.lane_share(lane) AS share, pushfan.lane_horizon(lane) AS horizon
    FROM (VALUES ('urgent'), ('normal'), ('bulk')) AS v (lane)
), room AS MATERIALIZED (
    SELECT c.id AS channel_id, lanes.lane,
        CASE c.circuit WHEN 'probing' THEN 1 ELSE least(c.slots, lanes.share) END - (
            SELECT count(*) FROM pushfan.chunk k
            WHERE k.channel_id = c.id AND (k.lane = lanes.lane OR c.circuit = 'probing')
              AND k.published_at >= CASE c.circuit WHEN 'probing' THEN c.circuit_changed_at ELSE '-infinity' END
              AND (k.ready_at > now() OR k.lease_until > now())
    ) AS free
    FROM pushfan.channel c CROSS JOIN lanes
    WHERE c.circuit <> 'open' AND (%(channel_ids)s::integer[] IS NULL OR c.id = ANY (%(channel_ids)s))
      AND (c.circuit = 'probing' OR c.budget_at <= now() + lanes.horizon)
), due AS MATERIALIZED (
    SELECT k.id
    FROM room CROSS JOIN LATERAL (
        SELECT k.id FROM pushfan.chunk k
        WHERE k.channel_id = room.channel_id AND k.lane = room.lane AND k.ready_at <= now()
          AND (k.lease_until IS NULL OR k.lease_until < now())
        ORDER BY k.ready_at
        LIMIT greatest(0, room.free)
        FOR UPDATE SKIP LOCKED
    ) AS k
)
UPDATE pushfan.chunk k
SET published_at = now(), publications = least(k.publications + 1, 5),
    ready_at = now() + interval '5 seconds' * (1 << least(k.publications, 4))
FROM due WHERE k.id = due.id
RETURNING k.id AS chunk_id, k.channel_id, k.lane, k.notification_ids[1] AS notification_id,
          cardinality(k.device_ids) AS positions

-- name: recall
-- Chunks that were begun and whose announcement came to nothing go back to their place: as it is they would come after
-- everything that waits.
WITH lapsed AS (
    SELECT k.id FROM pushfan.chunk k
    WHERE k.published_at IS NOT NULL AND k.fence > 0 AND k.ready_at > k.queued_at AND k.ready_at <= now()
      AND (k.lease_until IS NULL OR k.lease_until < now())
    ORDER BY k.id FOR UPDATE SKIP LOCKED
)
UPDATE pushfan.chunk k SET published_at = NULL, ready_at = k.queued_at - interval '1 millisecond'
FROM lapsed WHERE k.id = lapsed.id

-- name: dispatch_expired
-- Chunks that may no longer be sent are published whatever the circuit says: their deliveries must end.
WITH due AS MATERIALIZED (
    SELECT k.id FROM pushfan.chunk k
    WHERE k.expires_at <= now() AND k.ready_at <= now() AND (k.lease_until IS NULL OR k.lease_until < now())
    ORDER BY k.expires_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE pushfan.chunk k
SET published_at = now(), publications = least(k.publications + 1, 5),
    ready_at = now() + interval '5 seconds' * (1 << least(k.publications, 4))
FROM due WHERE k.id = due.id
RETURNING k.id AS chunk_id, k.channel_id, k.lane, k.notification_ids[1] AS notification_id,
          cardinality(k.device_ids) AS positions

-- name: lock_channel
-- Claims of one channel take turns: a claim that counted leases without this lock got through a limit of one.
SELECT c.id FROM pushfan.channel c WHERE c.id = %(channel_id)s FOR NO KEY UPDATE

-- name: absorb
-- Small chunks of first attempts, such as single direct pushes make, travel together: the one that is about to be
-- claimed takes in those that wait beside it, as many as fit. Their own messages will find nothing.
WITH host AS MATERIALIZED (
    SELECT k.id, k.channel_id, k.lane, k.notification_ids, k.device_ids, k.expires_at, k.queued_at
    FROM pushfan.chunk k
    WHERE k.id = %(chunk_id)s AND k.channel_id = %(channel_id)s AND k.fence = 0 AND k.earlier IS NULL
      AND k.expires_at > now() AND cardinality(k.device_ids) <= %(chunk_size)s / 4
    FOR UPDATE
), near AS MATERIALIZED (
    SELECT g.id, cardinality(host.device_ids) + sum(cardinality(g.device_ids)) OVER (ORDER BY g.id) AS total
    FROM host CROSS JOIN LATERAL (
        SELECT g.id, g.device_ids FROM pushfan.chunk g
        WHERE g.channel_id = host.channel_id AND g.lane = host.lane AND g.id <> host.id AND g.fence = 0
          AND g.earlier IS NULL AND g.expires_at > now() AND cardinality(g.device_ids) <= %(chunk_size)s / 4
        ORDER BY g.ready_at
        LIMIT %(chunk_size)s
        FOR UPDATE SKIP LOCKED
    ) AS g
), guests AS (
    DELETE FROM pushfan.chunk k USING near WHERE k.id = near.id AND near.total <= %(chunk_size)s
    RETURNING k.id, k.notification_ids, k.device_ids, k.expires_at
), together AS (
    SELECT max(c.expires_at) AS expires_at, array_agg(p.device_id ORDER BY c.id, p.place) AS device_ids,
           array_agg(c.notification_ids[CASE cardinality(c.notification_ids) WHEN 1 THEN 1 ELSE p.place END]
                     ORDER BY c.id, p.place) AS notification_ids
    FROM (SELECT id, notification_ids, device_ids, expires_at FROM host UNION ALL TABLE guests) AS c
    CROSS JOIN LATERAL unnest(c.device_ids) WITH ORDINALITY AS p (device_id, place)
)
UPDATE pushfan.chunk k
SET notification_ids = t.notification_ids, device_ids = t.device_ids, expires_at = t.expires_at,
    result = decode(repeat('00', cardinality(t.device_ids)), 'hex')
FROM host, together t
WHERE k.id = host.id AND EXISTS (SELECT FROM guests)

-- name: claim
-- Take the right to work on a chunk. Reads what the last owner left from the locked row, never from the
-- statement's older snapshot, and says at once how many positions go to the send engine first. A chunk that was
-- begun comes before the others when its lease ends, however long the backlog: while its announcement is on the way
-- its slot is kept from those that nobody has begun.
-- The channel lets it through while its circuit is closed, a slot is free and its rate is not used up; while it is
-- probing, one chunk at a time. What has expired goes through in any case, and costs nothing. What is refused goes
-- back to its place and may be published again at once, or when the rate allows it.
WITH held AS MATERIALIZED (
    SELECT k.id, k.channel_id, k.lane, k.fence, k.issued, k.expires_at <= clock_timestamp() AS is_over,
           cardinality(k.device_ids) AS positions
    FROM pushfan.chunk k
    WHERE k.id = %(chunk_id)s AND k.channel_id = %(channel_id)s
      AND (k.lease_until IS NULL OR k.lease_until < clock_timestamp())
    FOR UPDATE
), gate AS MATERIALIZED (
    SELECT held.*, c.circuit, c.circuit_reason, c.circuit_generation,
        held.positions / pushfan.channel_rate(c.rate_per_second, c.ramping_since) AS cost_seconds,
        greatest(interval '0', c.budget_at - clock_timestamp() - pushfan.lane_horizon(held.lane)) AS wait,
        least(c.slots, pushfan.lane_share(held.lane)) AS slots,
        (SELECT count(*) FROM pushfan.chunk o
         WHERE o.channel_id = held.channel_id AND (o.lane = held.lane OR c.circuit = 'probing')
           AND o.published_at >= CASE c.circuit WHEN 'probing' THEN c.circuit_changed_at ELSE '-infinity' END
           AND o.id <> held.id
           AND (o.lease_until > clock_timestamp()
                OR (held.fence = 0 AND o.fence > 0 AND o.ready_at > clock_timestamp()))) AS leased
    FROM held JOIN pushfan.channel c ON c.id = held.channel_id
), verdict AS MATERIALIZED (
    SELECT gate.*, gate.is_over OR CASE gate.circuit
        WHEN 'closed' THEN gate.leased < gate.slots AND gate.wait = interval '0'
        WHEN 'probing' THEN gate.leased = 0
        ELSE false END AS is_let_through
    FROM gate
), spent AS (
    UPDATE pushfan.channel c
    SET budget_at = greatest(c.budget_at, clock_timestamp()) + make_interval(secs => v.cost_seconds)
    FROM verdict v WHERE c.id = v.channel_id AND v.is_let_through AND v.circuit = 'closed' AND NOT v.is_over
), refused AS (
    UPDATE pushfan.chunk k
    SET published_at = NULL, publications = 0, ready_at = CASE WHEN v.wait > interval '0' AND v.circuit = 'closed'
        THEN clock_timestamp() + v.wait ELSE k.queued_at - interval '1 millisecond' * least(k.fence, 1) END
    FROM verdict v WHERE k.id = v.id AND NOT v.is_let_through
)
UPDATE pushfan.chunk k
SET fence = k.fence + 1, owner = %(owner)s, strikes = k.strikes + 1, publications = 0, published_at = now(),
    lease_until = clock_timestamp() + %(lease)s, ready_at = k.queued_at - interval '1 millisecond',
    issued = greatest(k.issued, least(
        CASE v.circuit WHEN 'probing' THEN %(probe)s ELSE %(first)s END, cardinality(k.device_ids)))
FROM verdict v
WHERE k.id = v.id AND v.is_let_through
RETURNING k.id AS chunk_id, k.app_id, k.channel_id, k.lane, k.notification_ids, k.device_ids, k.attempts, k.earlier,
          k.request_tags, k.expires_at, k.fence, k.strikes, k.result, k.issued, v.issued AS issued_before,
          v.circuit_generation, v.circuit = 'probing' AS is_probe, v.circuit_reason

-- name: load_contents
-- What the chunk's notifications say.
SELECT n.id, n.event, n.expires_at, n.cancelled_at IS NOT NULL AS is_cancelled, clock_timestamp() AS loaded_at
FROM pushfan.chunk k JOIN pushfan.notification n ON n.id = ANY (k.notification_ids)
WHERE k.id = %(chunk_id)s

-- name: load_first_addresses
-- The devices of the first positions as they are now; a device that left is missing.
SELECT p.position - 1 AS position, d.token, d.address_kind = 'installation_id' AS is_installation_id, d.locale,
       d.state = 'suspect' AS is_suspect, clock_timestamp() AS loaded_at
FROM pushfan.chunk k
CROSS JOIN LATERAL unnest(k.device_ids[1 : %(first)s]) WITH ORDINALITY AS p (device_id, position)
JOIN pushfan.device d ON d.id = p.device_id AND d.channel_id = k.channel_id AND d.state <> 'retired'
WHERE k.id = %(chunk_id)s

-- name: load_addresses
-- The devices of some positions as they are now; a device that left is missing.
SELECT p.position, d.token, d.address_kind = 'installation_id' AS is_installation_id, d.locale,
       d.state = 'suspect' AS is_suspect, clock_timestamp() AS loaded_at
FROM unnest(%(positions)s::integer[], %(device_ids)s::bigint[]) AS p (position, device_id)
JOIN pushfan.device d ON d.id = p.device_id AND d.channel_id = %(channel_id)s AND d.state <> 'retired'

-- name: count_unsure
-- Positions that the last owner had issued and not recorded: the bound of what a kill can repeat.
UPDATE pushfan.notification n SET unsure = n.unsure + u.count
FROM unnest(%(notification_ids)s::bigint[], %(counts)s::integer[]) AS u (id, count)
WHERE n.id = u.id

-- name: renew
-- Say how many positions go to the send engine, and hold the lease: nothing was answered yet.
-- The lease moves only when less than half of it is left. Repeating this changes nothing.
UPDATE pushfan.chunk k
SET issued = greatest(k.issued, %(issued)s),
    request_tags = coalesce(%(request_tags)s::text[], k.request_tags),
    lease_until = CASE WHEN k.lease_until < clock_timestamp() + %(lease)s / 2
                       THEN clock_timestamp() + %(lease)s ELSE k.lease_until END
WHERE k.id = %(chunk_id)s AND k.fence = %(fence)s
RETURNING k.lease_until - clock_timestamp() AS lease_left,
          (SELECT c.circuit_generation FROM pushfan.channel c WHERE c.id = k.channel_id) AS circuit_generation

-- name: flush
-- Record answers: the whole result vector, final outcomes and waiting ones, or nothing if the fence has moved
-- or this very vector is already there (a repeat after a lost reply to COMMIT).
WITH flushed AS (
    UPDATE pushfan.chunk k
    SET result = %(result)s, issued = greatest(k.issued, %(issued)s), strikes = 0,
        request_tags = coalesce(%(request_tags)s::text[], k.request_tags),
        lease_until = CASE WHEN k.lease_until < clock_timestamp() + %(lease)s / 2
                           THEN clock_timestamp() + %(lease)s ELSE k.lease_until END
    WHERE k.id = %(chunk_id)s AND k.fence = %(fence)s AND k.result <> %(result)s
    RETURNING k.app_id, k.channel_id, k.lane, k.notification_ids, k.lease_until - clock_timestamp() AS lease_left
), final AS (
    INSERT INTO pushfan.delivery
        (notification_id, device_id, at, outcome, attempts, reason, provider_id, earlier)
    SELECT f.notification_id, f.device_id, clock_timestamp(), f.outcome::pushfan.outcome, f.attempts, f.reason,
           f.provider_id, f.earlier
    FROM flushed CROSS JOIN unnest(
        %(final_notifications)s::bigint[], %(final_devices)s::bigint[], %(final_outcomes)s::text[],
        %(final_attempts)s::smallint[], %(final_reasons)s::text[], %(final_provider_ids)s::text[],
        %(final_earlier)s::text[]::jsonb[]
    ) AS f (notification_id, device_id, outcome, attempts, reason, provider_id, earlier)
), waiting AS (
    INSERT INTO pushfan.retry
        (notification_id, device_id, app_id, channel_id, lane, attempts, due_at, expires_at, request_tag, earlier)
    SELECT w.notification_id, w.device_id, flushed.app_id, flushed.channel_id, flushed.lane, w.attempts,
           now() + w.delay, w.expires_at, w.request_tag, w.earlier
    FROM flushed CROSS JOIN unnest(
        %(wait_notifications)s::bigint[], %(wait_devices)s::bigint[], %(wait_attempts)s::smallint[],
        %(wait_delays)s::interval[], %(wait_expiries)s::timestamptz[], %(wait_tags)s::text[],
        %(wait_earlier)s::text[]::jsonb[]
    ) AS w (notification_id, device_id, attempts, delay, expires_at, request_tag, earlier)
)
SELECT flushed.lease_left, ARRAY(
    SELECT n.id FROM pushfan.notification n
    WHERE n.id = ANY (flushed.notification_ids) AND n.cancelled_at IS NOT NULL
) AS cancelled, (
    SELECT c.circuit_generation FROM pushfan.channel c WHERE c.id = flushed.channel_id
) AS circuit_generation
FROM flushed

-- name: holds
-- After a lost reply: does the chunk still carry our fence, and did the flush arrive?
SELECT k.fence = %(fence)s AS is_owner, k.result = %(result)s AS is_recorded
FROM pushfan.chunk k WHERE k.id = %(chunk_id)s

-- name: count_ended
-- What a chunk that is done adds to its channel: how its deliveries ended, and the answers since the credentials last
-- changed, by which suspects are believed dead or not. Those count nothing that was gathered under other credentials.
-- Counted once: not when the chunk is no longer ours or these answers are already recorded.
UPDATE pushfan.channel c
SET accepted = c.accepted + CASE WHEN c.circuit_generation = %(generation)s THEN %(accepted)s ELSE 0 END,
    doubted = c.doubted + CASE WHEN c.circuit_generation = %(generation)s THEN %(doubted)s ELSE 0 END,
    -- Spelled out: a subquery would cost as much as all the rest.
    outcomes = ARRAY[
        c.outcomes[1] + (%(outcomes)s::text::bigint[])[1], c.outcomes[2] + (%(outcomes)s::text::bigint[])[2],
        c.outcomes[3] + (%(outcomes)s::text::bigint[])[3], c.outcomes[4] + (%(outcomes)s::text::bigint[])[4],
        c.outcomes[5] + (%(outcomes)s::text::bigint[])[5], c.outcomes[6] + (%(outcomes)s::text::bigint[])[6],
        c.outcomes[7] + (%(outcomes)s::text::bigint[])[7], c.outcomes[8] + (%(outcomes)s::text::bigint[])[8]
    ]
WHERE c.id = %(channel_id)s AND EXISTS (
    SELECT FROM pushfan.chunk k WHERE k.id = %(chunk_id)s AND k.fence = %(fence)s AND k.result <> %(result)s)

-- name: finish
-- Remove a chunk without open positions and add its outcomes to its notifications, once, in id order.
WITH gone AS (
    DELETE FROM pushfan.chunk k WHERE k.id = %(chunk_id)s AND k.fence = %(fence)s
    RETURNING k.id
), sums AS MATERIALIZED (
    SELECT * FROM unnest(
        %(notification_ids)s::bigint[], %(accepted)s::integer[], %(unregistered)s::integer[],
        %(rejected)s::integer[], %(expired)s::integer[], %(cancelled)s::integer[], %(withdrawn)s::integer[],
        %(unknown)s::integer[], %(dead)s::integer[], %(retries)s::integer[]
    ) AS s (id, accepted, unregistered, rejected, expired, cancelled, withdrawn, unknown, dead, retries)
), locked AS MATERIALIZED (
    SELECT n.id FROM pushfan.notification n, gone WHERE n.id = ANY (%(notification_ids)s::bigint[])
    ORDER BY n.id FOR NO KEY UPDATE OF n
)
UPDATE pushfan.notification n
SET accepted = n.accepted + s.accepted, unregistered = n.unregistered + s.unregistered,
    rejected = n.rejected + s.rejected, expired = n.expired + s.expired, cancelled = n.cancelled + s.cancelled,
    withdrawn = n.withdrawn + s.withdrawn, unknown = n.unknown + s.unknown, dead = n.dead + s.dead,
    retries = n.retries + s.retries,
    finished_at = CASE WHEN n.planned_at IS NOT NULL AND n.devices =
        n.accepted + n.unregistered + n.rejected + n.expired + n.cancelled + n.withdrawn + n.unknown + n.dead
        + s.accepted + s.unregistered + s.rejected + s.expired + s.cancelled + s.withdrawn + s.unknown + s.dead
        THEN clock_timestamp() END
FROM locked, sums s
WHERE n.id = locked.id AND s.id = n.id

-- name: release
-- Give a chunk back: nothing of it is in flight.
UPDATE pushfan.chunk k
SET owner = NULL, lease_until = NULL, published_at = NULL, publications = 0,
    ready_at = k.queued_at - interval '1 millisecond', strikes = 0,
    issued = %(issued)s
WHERE k.id = %(chunk_id)s AND k.fence = %(fence)s

-- name: owners
-- Who holds leases among the processes of one worker.
SELECT DISTINCT k.owner FROM pushfan.chunk k
WHERE k.published_at IS NOT NULL AND k.lease_until > clock_timestamp() AND starts_with(k.owner, %(prefix)s)

-- name: release_dead
-- Processes that certainly no longer exist lose their leases at once; what they had issued stays unsure. Their chunks
-- come first, or in a long broadcast they would wait behind everything that is planned.
WITH held AS (
    SELECT k.id FROM pushfan.chunk k
    WHERE k.published_at IS NOT NULL AND k.owner = ANY (%(owners)s) AND k.lease_until > clock_timestamp()
    ORDER BY k.id FOR UPDATE SKIP LOCKED
)
UPDATE pushfan.chunk k
SET lease_until = NULL, published_at = NULL, publications = 0, ready_at = k.queued_at - interval '1 millisecond'
FROM held WHERE k.id = held.id
RETURNING k.id AS chunk_id, k.owner, k.channel_id

-- name: insert_chunk
-- One half of a chunk that made no progress twice.
INSERT INTO pushfan.chunk
    (app_id, channel_id, lane, notification_ids, device_ids, attempts, earlier, request_tags, expires_at, issued, result,
     strikes)
VALUES
    (%(app_id)s, %(channel_id)s, %(lane)s, %(notification_ids)s, %(device_ids)s, %(attempts)s, %(earlier)s,
     %(request_tags)s, %(expires_at)s, %(issued)s, %(result)s, %(strikes)s)

-- name: record_dead
-- A delivery that will not move by itself any more.
INSERT INTO pushfan.dead_letter (app_id, kind, error, notification_id, device_id)
VALUES (%(app_id)s, %(kind)s, %(error)s, %(notification_id)s, %(device_id)s)

-- name: move_due_retries
-- Deliveries whose time has come go into new chunks; members of one vendor request stay together, so that
-- the vendor can recognise the repeat. A fifth of a channel's rate is all that repeats may take, so that an outage is
-- not followed by a storm of them; what is over that waits here. A stopped channel's wait, too, but for those that may
-- no longer be sent: they keep to themselves.
WITH allowed AS MATERIALIZED (
    SELECT c.id AS channel_id, c.rate_per_second, c.ramping_since,
        least(%(limit)s, ceil(pushfan.channel_rate(c.rate_per_second, c.ramping_since) / 5 * extract(epoch FROM
            now() + interval '1 second' - greatest(c.retry_budget_at, now()))))::bigint AS positions
    FROM pushfan.channel c WHERE c.circuit <> 'open'
), due AS MATERIALIZED (
    SELECT r.notification_id, r.device_id
    FROM allowed CROSS JOIN LATERAL (
        SELECT r.notification_id, r.device_id FROM pushfan.retry r
        WHERE r.channel_id = allowed.channel_id AND r.due_at <= now()
        ORDER BY r.due_at
        LIMIT greatest(0, allowed.positions)
        FOR UPDATE SKIP LOCKED
    ) AS r
), over AS MATERIALIZED (
    SELECT r.notification_id, r.device_id FROM pushfan.retry r
    WHERE r.expires_at <= now()
    ORDER BY r.expires_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM pushfan.retry r USING (TABLE due UNION TABLE over) AS due
    WHERE r.notification_id = due.notification_id AND r.device_id = due.device_id
    RETURNING r.*
), spent AS (
    UPDATE pushfan.channel c
    SET retry_budget_at = greatest(c.retry_budget_at, now()) + make_interval(secs =>
        g.positions * 5 / pushfan.channel_rate(c.rate_per_second, c.ramping_since))
    FROM (SELECT channel_id, count(*) AS positions FROM gone WHERE expires_at > now() GROUP BY channel_id) AS g
    WHERE c.id = g.channel_id
), numbered AS (
    SELECT g.*, g.expires_at <= now() AS is_over, (row_number() OVER (
        PARTITION BY g.channel_id, g.lane, g.request_tag, g.expires_at <= now()
        ORDER BY g.notification_id, g.device_id
    ) - 1) / %(chunk_size)s AS part
    FROM gone g
)
INSERT INTO pushfan.chunk
    (app_id, channel_id, lane, notification_ids, device_ids, attempts, earlier, request_tags, expires_at, result)
SELECT app_id, channel_id, lane,
       array_agg(notification_id ORDER BY notification_id, device_id),
       array_agg(device_id ORDER BY notification_id, device_id),
       array_agg(attempts ORDER BY notification_id, device_id),
       jsonb_agg(earlier ORDER BY notification_id, device_id),
       CASE WHEN request_tag IS NOT NULL THEN array_agg(request_tag) END,
       max(expires_at), decode(repeat('00', count(*)::integer), 'hex')
FROM numbered
GROUP BY app_id, channel_id, lane, request_tag, is_over, part
RETURNING channel_id, cardinality(device_ids) AS positions
