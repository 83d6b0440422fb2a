-- name: add
-- A new channel; no row when the app is missing or the name is taken.
INSERT INTO pushfan.channel
    (app_id, name, provider, environment, settings, secrets, endpoint, report_endpoint, ca_file, slots, rate_per_second)
SELECT a.id, %(name)s, %(provider)s, %(environment)s, %(settings)s, %(secrets)s, %(endpoint)s, %(report_endpoint)s,
       %(ca_file)s, %(slots)s, %(rate_per_second)s
FROM pushfan.app a WHERE a.id = %(app_id)s
ON CONFLICT ON CONSTRAINT channel_app_name_key DO NOTHING
RETURNING id, app_id, name, provider, environment, settings, secrets, endpoint, report_endpoint, ca_file,
          slots, rate_per_second, circuit, circuit_reason, circuit_detail, circuit_generation,
          circuit_changed_at, probe_at, failed_probes, ramping_since, credential_fingerprint, health_since,
          accepted, doubted, created_at

-- name: get
-- One channel of an app, by name.
SELECT c.id, c.app_id, c.name, c.provider, c.environment, c.settings, c.secrets, c.endpoint,
       c.report_endpoint, c.ca_file, c.slots, c.rate_per_second, c.circuit, c.circuit_reason,
       c.circuit_detail, c.circuit_generation, c.circuit_changed_at, c.probe_at, c.failed_probes, c.ramping_since,
       c.credential_fingerprint, c.health_since, c.accepted, c.doubted, c.created_at
FROM pushfan.channel c WHERE c.app_id = %(app_id)s AND c.name = %(name)s

-- name: find
-- One channel by id.
SELECT c.id, c.app_id, c.name, c.provider, c.environment, c.settings, c.secrets, c.endpoint,
       c.report_endpoint, c.ca_file, c.slots, c.rate_per_second, c.circuit, c.circuit_reason,
       c.circuit_detail, c.circuit_generation, c.circuit_changed_at, c.probe_at, c.failed_probes, c.ramping_since,
       c.credential_fingerprint, c.health_since, c.accepted, c.doubted, c.created_at
FROM pushfan.channel c WHERE c.id = %(channel_id)s

-- name: list_all
-- The channels of one app, or of all.
SELECT c.id, c.app_id, c.name, c.provider, c.environment, c.settings, c.secrets, c.endpoint,
       c.report_endpoint, c.ca_file, c.slots, c.rate_per_second, c.circuit, c.circuit_reason,
       c.circuit_detail, c.circuit_generation, c.circuit_changed_at, c.probe_at, c.failed_probes, c.ramping_since,
       c.credential_fingerprint, c.health_since, c.accepted, c.doubted, c.created_at
FROM pushfan.channel c
WHERE %(app_id)s::integer IS NULL OR c.app_id = %(app_id)s
ORDER BY c.app_id, c.name COLLATE "C"

-- name: open_for_credentials
-- Channels that wait for other secrets.
SELECT c.id, c.app_id, c.name, c.provider, c.environment, c.settings, c.secrets, c.endpoint,
       c.report_endpoint, c.ca_file, c.slots, c.rate_per_second, c.circuit, c.circuit_reason,
       c.circuit_detail, c.circuit_generation, c.circuit_changed_at, c.probe_at, c.failed_probes, c.ramping_since,
       c.credential_fingerprint, c.health_since, c.accepted, c.doubted, c.created_at
FROM pushfan.channel c WHERE c.circuit = 'open' AND c.circuit_reason = 'credentials' ORDER BY c.id

-- name: lock
-- The channel comes first in the order of locks. NO KEY: registrations may refer to it meanwhile.
SELECT c.circuit, c.circuit_reason, c.circuit_generation
FROM pushfan.channel c WHERE c.id = %(channel_id)s
FOR NO KEY UPDATE

-- name: pause
-- An operator stops the channel; stopped again it stays as it is, so that its generation tells one stop.
UPDATE pushfan.channel c
SET circuit = 'open', circuit_reason = 'operator', circuit_detail = %(detail)s,
    circuit_generation = c.circuit_generation + CASE WHEN o.is_paused THEN 0 ELSE 1 END,
    circuit_changed_at = CASE WHEN o.is_paused THEN c.circuit_changed_at ELSE clock_timestamp() END,
    credential_fingerprint = NULL, probe_at = NULL
FROM (
    SELECT p.id, p.circuit = 'open' AND p.circuit_reason IS NOT DISTINCT FROM 'operator' AS is_paused
    FROM pushfan.channel p WHERE p.id = %(channel_id)s FOR NO KEY UPDATE
) AS o
WHERE c.id = o.id
RETURNING c.circuit_generation

-- name: open
-- Stop the channel for what was seen, unless its circuit has changed since. Without a rest somebody must act; with one
-- it probes by itself, later each time that a probe fails, or that it has to stop soon after it began again.
UPDATE pushfan.channel c
SET circuit = 'open', circuit_reason = %(reason)s, circuit_detail = %(detail)s,
    circuit_generation = c.circuit_generation + 1, circuit_changed_at = clock_timestamp(),
    credential_fingerprint = %(fingerprint)s, failed_probes = o.failed_probes,
    probe_at = clock_timestamp() + greatest(
        %(floor)s::interval, least(%(cap)s::interval, %(rest)s::interval * 2 ^ o.failed_probes))
FROM (
    SELECT p.id, CASE WHEN p.circuit = 'probing' OR p.ramping_since > clock_timestamp() - interval '1 minute'
                      THEN least(p.failed_probes + 1, 20) ELSE 0 END AS failed_probes
    FROM pushfan.channel p WHERE p.id = %(channel_id)s FOR NO KEY UPDATE
) AS o
WHERE c.id = o.id AND c.circuit_generation = %(generation)s AND c.circuit <> 'open'
RETURNING c.circuit_generation

-- name: begin_probes
-- Stopped channels whose rest is over and that have something to send let a few positions through.
UPDATE pushfan.channel c
SET circuit = 'probing', circuit_generation = c.circuit_generation + 1, circuit_changed_at = clock_timestamp(),
    probe_at = NULL
WHERE c.circuit = 'open' AND c.probe_at <= now()
  AND (EXISTS (SELECT FROM pushfan.chunk k WHERE k.channel_id = c.id AND k.expires_at > now())
       OR EXISTS (SELECT FROM pushfan.retry r WHERE r.channel_id = c.id AND r.due_at <= now()))
RETURNING c.id

-- name: probe
-- An operator lets a few positions through a stopped channel.
UPDATE pushfan.channel c
SET circuit = 'probing', circuit_generation = c.circuit_generation + 1, circuit_changed_at = clock_timestamp(),
    probe_at = NULL
WHERE c.id = %(channel_id)s AND c.circuit = 'open'
RETURNING c.id

-- name: close
-- Let traffic flow, slowly at first; after a probe only if the circuit is still the one that was probed.
UPDATE pushfan.channel c
SET circuit = 'closed', circuit_reason = NULL, circuit_detail = NULL, credential_fingerprint = NULL,
    circuit_generation = c.circuit_generation + 1, circuit_changed_at = clock_timestamp(),
    probe_at = NULL, ramping_since = clock_timestamp()
WHERE c.id = %(channel_id)s
  AND (%(probed)s::bigint IS NULL OR (c.circuit = 'probing' AND c.circuit_generation = %(probed)s))
RETURNING c.id

-- name: change_credentials
-- Other credentials: what was seen under the old ones is stale, and a circuit that they opened probes.
UPDATE pushfan.channel c
SET circuit = CASE WHEN o.is_theirs THEN 'probing' ELSE c.circuit END,
    credential_fingerprint = NULL,
    circuit_generation = c.circuit_generation + 1,
    circuit_changed_at = CASE WHEN o.is_theirs THEN clock_timestamp() ELSE c.circuit_changed_at END,
    probe_at = CASE WHEN NOT o.is_theirs THEN c.probe_at END
FROM (
    SELECT p.id, p.circuit <> 'closed' AND p.circuit_reason IN ('credentials', 'mass_invalidation') AS is_theirs
    FROM pushfan.channel p WHERE p.id = %(channel_id)s
) AS o
WHERE c.id = o.id

-- name: set_access
-- Where the channel leads, and by which secrets.
UPDATE pushfan.channel c
SET environment = %(environment)s, settings = %(settings)s, secrets = %(secrets)s, endpoint = %(endpoint)s,
    report_endpoint = %(report_endpoint)s, ca_file = %(ca_file)s
WHERE c.id = %(channel_id)s

-- name: reset_health
-- Answers are counted anew.
UPDATE pushfan.channel c SET health_since = clock_timestamp(), accepted = 0, doubted = 0 WHERE c.id = %(channel_id)s

-- name: believe_suspects
-- Doubts that the old credentials or the operator explain are forgotten.
WITH held AS MATERIALIZED (
    SELECT d.id FROM pushfan.device d
    WHERE d.channel_id = %(channel_id)s AND d.state = 'suspect'
    ORDER BY d.id
    FOR NO KEY UPDATE
)
UPDATE pushfan.device d SET state = 'active', state_reason = NULL, state_changed_at = clock_timestamp()
FROM held WHERE d.id = held.id AND d.state = 'suspect'

-- name: pending
-- Whether deliveries have not ended.
SELECT c.name,
       EXISTS (SELECT FROM pushfan.chunk k WHERE k.channel_id = c.id) AS chunks,
       EXISTS (SELECT FROM pushfan.retry r WHERE r.channel_id = c.id) AS retries
FROM pushfan.channel c WHERE c.id = %(channel_id)s

-- name: remove_devices
-- Some of the channel's devices: a cascade over millions would be one long transaction.
WITH held AS MATERIALIZED (
    SELECT d.id FROM pushfan.device d
    WHERE d.channel_id = %(channel_id)s AND d.id > %(after)s
    ORDER BY d.id
    LIMIT %(limit)s
    FOR UPDATE
)
DELETE FROM pushfan.device d USING held WHERE d.id = held.id
RETURNING d.id

-- name: remove
-- The channel itself, with what was registered meanwhile and what was to be asked about it.
WITH polls AS (
    DELETE FROM pushfan.receipt_poll p WHERE p.channel_id = %(channel_id)s
)
DELETE FROM pushfan.channel c WHERE c.id = %(channel_id)s
