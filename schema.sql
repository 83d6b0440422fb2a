-- Pushfan's tables: the truth about apps, devices, notifications and every delivery.
--
-- Apply to an empty database to make it ready; apply again and nothing changes. Plain PostgreSQL 14 or newer,
-- no extension. Later changes come as numbered files in registry/migrations/ (`pushfan db apply` runs them); both
-- ways end equal.
--
-- A delivery, that is one (notification, device), is in exactly one place:
--     an open position of a chunk  ->  a row of retry  ->  ... ->  a row of delivery
-- so that planned = open + waiting + final, always.

CREATE SCHEMA IF NOT EXISTS pushfan;

CREATE TABLE IF NOT EXISTS pushfan.schema_version (
    version     integer     NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT schema_version_pkey PRIMARY KEY (version)
);

-- What finally became of a delivery. The ordinal, from 1, is the byte in chunk.result; 0 is open, 9 is waiting
-- (moved to retry), 10 is split (moved to another chunk). Never reordered.
DO $$
BEGIN
    CREATE TYPE pushfan.outcome AS ENUM (
        'accepted',      -- the vendor took it; never called delivered
        'unregistered',  -- the token is dead
        'rejected',      -- refused for good, the message's fault or a doubted token
        'expired',       -- the deadline passed first
        'cancelled',     -- an operator or a backend cancelled the notification
        'withdrawn',     -- the device left or changed hands since planning
        'unknown',       -- the answer was lost and the message says not to repeat
        'dead'           -- spent all its attempts, or killed its workers; a dead letter says more
    );
EXCEPTION WHEN duplicate_object THEN NULL;
END
$$;

-- ---------------------------------------------------------------------------------------------- tenants

CREATE TABLE IF NOT EXISTS pushfan.app (
    id          integer     GENERATED ALWAYS AS IDENTITY,
    name        text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT app_pkey PRIMARY KEY (id),
    CONSTRAINT app_name_key UNIQUE (name),
    CONSTRAINT app_name_check CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$')
);

-- Who may use the HTTP API. The secret is random and shown once; here is only its hash. Keys of one app and name are
-- successors: two of them may be active, while callers change over.
CREATE TABLE IF NOT EXISTS pushfan.api_key (
    id            integer     GENERATED ALWAYS AS IDENTITY,
    -- null: an operator's key, for all apps
    app_id        integer,
    name          text        NOT NULL,
    -- the visible beginning of the secret, by which people call the key
    prefix        text        NOT NULL,
    hash          bytea       NOT NULL,
    roles         text[]      NOT NULL,
    lanes         text[]      NOT NULL DEFAULT '{urgent,normal,bulk}',
    created_at    timestamptz NOT NULL DEFAULT now(),
    -- as of a minute ago
    last_used_at  timestamptz,
    -- from this instant on, which may be to come, the key opens nothing
    revoked_at    timestamptz,
    CONSTRAINT api_key_pkey PRIMARY KEY (id),
    CONSTRAINT api_key_hash_key UNIQUE (hash),
    CONSTRAINT api_key_prefix_key UNIQUE (prefix),
    CONSTRAINT api_key_app_fkey FOREIGN KEY (app_id) REFERENCES pushfan.app (id) ON DELETE CASCADE,
    CONSTRAINT api_key_name_check CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$'),
    CONSTRAINT api_key_roles_check CHECK (roles <@ '{publish,register,admin}' AND cardinality(roles) > 0),
    CONSTRAINT api_key_lanes_check CHECK (lanes <@ '{urgent,normal,bulk}' AND cardinality(lanes) > 0)
);
-- a name's active keys, an app's keys
CREATE INDEX IF NOT EXISTS api_key_name_idx ON pushfan.api_key (app_id, name);

-- One app's way to one provider. `secrets` holds references ("file:…", "env:…"), never secrets.
CREATE TABLE IF NOT EXISTS pushfan.channel (
    id                      integer     GENERATED ALWAYS AS IDENTITY,
    app_id                  integer     NOT NULL,
    name                    text        NOT NULL,
    provider                text        NOT NULL,
    environment             text        NOT NULL DEFAULT 'production',
    settings                jsonb       NOT NULL DEFAULT '{}',
    secrets                 jsonb       NOT NULL,
    endpoint                text,
    report_endpoint         text,
    ca_file                 text,
    -- at most this many chunks of one lane are published or leased at a time
    slots                   integer     NOT NULL DEFAULT 32,
    rate_per_second         integer     NOT NULL DEFAULT 10000,
    -- GCRA: the theoretical arrival time of the next push, and of the next repeated one
    budget_at               timestamptz NOT NULL DEFAULT '-infinity',
    retry_budget_at         timestamptz NOT NULL DEFAULT '-infinity',
    -- traffic that flows again grows from this instant on, see channel_rate
    ramping_since           timestamptz,
    -- closed: traffic flows. open: nothing is published or claimed. probing: a few positions are let through.
    circuit                 text        NOT NULL DEFAULT 'closed',
    circuit_reason          text,
    circuit_detail          text,
    -- grows at each change, so that news about an older state is recognised as stale
    circuit_generation      bigint      NOT NULL DEFAULT 0,
    circuit_changed_at      timestamptz NOT NULL DEFAULT now(),
    -- when an open circuit probes by itself; null: somebody must act
    probe_at                timestamptz,
    -- probes that failed in a row: each rests longer
    failed_probes           smallint    NOT NULL DEFAULT 0,
    -- what the secrets were when the circuit opened for them: they are probed at once when they differ
    credential_fingerprint  text,
    -- answers in the present window, which begins with other credentials and after each judgement of suspects
    health_since            timestamptz NOT NULL DEFAULT now(),
    accepted                bigint      NOT NULL DEFAULT 0,
    doubted                 bigint      NOT NULL DEFAULT 0,
    -- how many deliveries of the channel ended since it was made, in the order of pushfan.outcome
    outcomes                bigint[]    NOT NULL DEFAULT '{0,0,0,0,0,0,0,0}',
    created_at              timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT channel_pkey PRIMARY KEY (id),
    CONSTRAINT channel_app_name_key UNIQUE (app_id, name),
    CONSTRAINT channel_app_fkey FOREIGN KEY (app_id) REFERENCES pushfan.app (id) ON DELETE CASCADE,
    CONSTRAINT channel_name_check CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$'),
    CONSTRAINT channel_provider_check CHECK (provider IN ('fcm', 'apns', 'jpush')),
    CONSTRAINT channel_environment_check CHECK (environment IN ('production', 'sandbox')),
    CONSTRAINT channel_circuit_check CHECK (circuit IN ('closed', 'open', 'probing')),
    CONSTRAINT channel_circuit_reason_check CHECK (
        circuit_reason IN ('operator', 'credentials', 'outage', 'throttled', 'mass_invalidation')),
    CONSTRAINT channel_slots_check CHECK (slots BETWEEN 1 AND 1000),
    CONSTRAINT channel_rate_check CHECK (rate_per_second > 0),
    CONSTRAINT channel_outcomes_check CHECK (cardinality(outcomes) = 8)
);

-- ---------------------------------------------------------------------------------------------- registry

-- One app install of one user. The row never changes its user: a token that another user installs retires
-- this row and makes a new one. Promotion of a pseudo user is no change: it was that user all the time.
CREATE TABLE IF NOT EXISTS pushfan.device (
    id                bigint      GENERATED ALWAYS AS IDENTITY,
    app_id            integer     NOT NULL,
    channel_id        integer     NOT NULL,
    user_id           text        COLLATE "C" NOT NULL,
    -- chosen by the app and stable for one install, across token changes
    device_key        text        COLLATE "C" NOT NULL,
    token             text        COLLATE "C" NOT NULL,
    address_kind      text        NOT NULL DEFAULT 'token',
    locale            text,
    time_zone         text,
    app_version       text,
    -- when the app last told us that this token is its own
    registered_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- when we last heard from the app at all
    seen_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- active: used. suspect: used, but a vendor doubts the token. retired: kept for traces, never used again.
    state             text        NOT NULL DEFAULT 'active',
    state_reason      text,
    state_changed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT device_pkey PRIMARY KEY (id),
    CONSTRAINT device_app_fkey FOREIGN KEY (app_id) REFERENCES pushfan.app (id) ON DELETE CASCADE,
    CONSTRAINT device_channel_fkey FOREIGN KEY (channel_id) REFERENCES pushfan.channel (id) ON DELETE CASCADE,
    CONSTRAINT device_address_kind_check CHECK (address_kind IN ('token', 'installation_id')),
    CONSTRAINT device_state_check CHECK (state IN ('active', 'suspect', 'retired'))
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX IF NOT EXISTS device_token_key
    ON pushfan.device (channel_id, token) WHERE state <> 'retired';
CREATE UNIQUE INDEX IF NOT EXISTS device_device_key_key
    ON pushfan.device (channel_id, device_key) WHERE state <> 'retired';
-- recipients to devices, a user's devices, forget
CREATE INDEX IF NOT EXISTS device_user_idx ON pushfan.device (app_id, user_id, state);
-- the pass over suspects
CREATE INDEX IF NOT EXISTS device_suspect_idx ON pushfan.device (channel_id) WHERE state = 'suspect';

-- A bucket or a topic.
CREATE TABLE IF NOT EXISTS pushfan.target (
    id          bigint      GENERATED ALWAYS AS IDENTITY,
    app_id      integer     NOT NULL,
    kind        text        NOT NULL,
    scope       text        NOT NULL DEFAULT 'app',
    name        text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    -- which users may subscribe themselves, and in whose name may be sent: backend (nobody by itself), members (of the
    -- scope), users (of the app), group:<id> (its members)
    admits      text        NOT NULL DEFAULT 'backend',
    senders     text        NOT NULL DEFAULT 'backend',
    CONSTRAINT target_pkey PRIMARY KEY (id),
    CONSTRAINT target_name_key UNIQUE (app_id, kind, scope, name),
    CONSTRAINT target_app_fkey FOREIGN KEY (app_id) REFERENCES pushfan.app (id) ON DELETE CASCADE,
    CONSTRAINT target_admits_check CHECK (admits ~ '^(backend|members|users|group:.+)$'),
    CONSTRAINT target_senders_check CHECK (senders ~ '^(backend|members|users|group:.+)$'),
    CONSTRAINT target_kind_check CHECK (kind IN ('bucket', 'topic')),
    CONSTRAINT target_scope_check CHECK (scope ~ '^(app|(group|user|thing):.+)$')
);

CREATE TABLE IF NOT EXISTS pushfan.subscription (
    target_id   bigint      NOT NULL,
    user_id     text        COLLATE "C" NOT NULL,
    app_id      integer     NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT subscription_pkey PRIMARY KEY (target_id, user_id),
    CONSTRAINT subscription_target_fkey FOREIGN KEY (target_id) REFERENCES pushfan.target (id) ON DELETE CASCADE
);
-- a user's subscriptions, forget
CREATE INDEX IF NOT EXISTS subscription_user_idx ON pushfan.subscription (app_id, user_id);

-- Users who share targets, those of the scope group:<id>. `group` is a word of SQL.
CREATE TABLE IF NOT EXISTS pushfan.user_group (
    app_id      integer     NOT NULL,
    id          text        COLLATE "C" NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT user_group_pkey PRIMARY KEY (app_id, id),
    CONSTRAINT user_group_app_fkey FOREIGN KEY (app_id) REFERENCES pushfan.app (id) ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS pushfan.group_member (
    app_id      integer     NOT NULL,
    group_id    text        COLLATE "C" NOT NULL,
    user_id     text        COLLATE "C" NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT group_member_pkey PRIMARY KEY (app_id, group_id, user_id),
    CONSTRAINT group_member_group_fkey FOREIGN KEY (app_id, group_id)
        REFERENCES pushfan.user_group (app_id, id) ON DELETE CASCADE
);
-- a user's groups, forget
CREATE INDEX IF NOT EXISTS group_member_user_idx ON pushfan.group_member (app_id, user_id);

-- Pseudo users that have logged in. Nothing is registered for them any more.
CREATE TABLE IF NOT EXISTS pushfan.promotion (
    app_id      integer     NOT NULL,
    pseudo_id   text        COLLATE "C" NOT NULL,
    user_id     text        COLLATE "C" NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT promotion_pkey PRIMARY KEY (app_id, pseudo_id),
    CONSTRAINT promotion_app_fkey FOREIGN KEY (app_id) REFERENCES pushfan.app (id) ON DELETE CASCADE
);
-- forget
CREATE INDEX IF NOT EXISTS promotion_user_idx ON pushfan.promotion (app_id, user_id);

-- What happened to tokens, for backends to read. Readers page by (xid, id) and stop before transactions that
-- are still open, so that a row committed late is not skipped.
CREATE TABLE IF NOT EXISTS pushfan.feedback (
    id          bigint      GENERATED ALWAYS AS IDENTITY,
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    app_id      integer     NOT NULL,
    channel_id  integer     NOT NULL,
    device_id   bigint      NOT NULL,
    user_id     text        COLLATE "C" NOT NULL,
    device_key  text        NOT NULL,
    -- retired: no longer used. replaced: the same install has a new token. moved: the token has another user.
    kind        text        NOT NULL,
    reason      text        NOT NULL,
    token_hash  text        NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT feedback_pkey PRIMARY KEY (app_id, xid, id),
    CONSTRAINT feedback_kind_check CHECK (kind IN ('retired', 'replaced', 'moved'))
);
CREATE INDEX IF NOT EXISTS feedback_user_idx ON pushfan.feedback (app_id, user_id);

-- ---------------------------------------------------------------------------------------------- notifications

CREATE SEQUENCE IF NOT EXISTS pushfan.notification_seq CYCLE MAXVALUE 1048575 MINVALUE 0 START 0;

-- Time-ordered: milliseconds since the epoch in the upper bits, a sequence in the lower 20.
CREATE OR REPLACE FUNCTION pushfan.next_notification_id() RETURNS bigint
LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint << 20 | nextval('pushfan.notification_seq')
$$;

-- The smallest notification id that an instant could give: bounds of partitions, of listings by time.
CREATE OR REPLACE FUNCTION pushfan.notification_id_at(instant timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
    SELECT (extract(epoch FROM instant) * 1000)::bigint << 20
$$;

-- The idempotency keys of the last days.
CREATE TABLE IF NOT EXISTS pushfan.event_key (
    app_id           integer     NOT NULL,
    key              text        COLLATE "C" NOT NULL,
    notification_id  bigint      NOT NULL,
    digest           bytea       NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT event_key_pkey PRIMARY KEY (app_id, key),
    CONSTRAINT event_key_app_fkey FOREIGN KEY (app_id) REFERENCES pushfan.app (id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS event_key_created_idx ON pushfan.event_key (created_at);

-- An event taken in.
CREATE TABLE IF NOT EXISTS pushfan.notification (
    id                  bigint      NOT NULL,
    app_id              integer     NOT NULL,
    key                 text        COLLATE "C" NOT NULL,
    kind                text        NOT NULL,
    -- the wire form; cleared some time after the finish
    event               jsonb,
    lane                text        NOT NULL,
    -- the publisher chose the lane: a large fan-out does not make it bulk
    is_lane_fixed       boolean     NOT NULL,
    -- who receives: subscribers of the target, or the named users, in order and without repeats
    target_id           bigint,
    recipients          text[]      COLLATE "C",
    excluded_user       text        COLLATE "C",
    excluded_providers  text[]      NOT NULL DEFAULT '{}',
    -- only devices on channels of this environment; null: of either
    environment         text,
    expires_at          timestamptz NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- the planner's place: users up to and including this one are planned
    planned_user        text        COLLATE "C" NOT NULL DEFAULT '',
    plan_due_at         timestamptz NOT NULL DEFAULT now(),
    planned_at          timestamptz,
    cancelled_at        timestamptz,
    finished_at         timestamptz,
    warning             text,
    users               integer     NOT NULL DEFAULT 0,
    devices             integer     NOT NULL DEFAULT 0,
    accepted            integer     NOT NULL DEFAULT 0,
    unregistered        integer     NOT NULL DEFAULT 0,
    rejected            integer     NOT NULL DEFAULT 0,
    expired             integer     NOT NULL DEFAULT 0,
    cancelled           integer     NOT NULL DEFAULT 0,
    withdrawn           integer     NOT NULL DEFAULT 0,
    unknown             integer     NOT NULL DEFAULT 0,
    dead                integer     NOT NULL DEFAULT 0,
    -- moves to the retry table; positions that a killed owner had issued and not recorded
    retries             integer     NOT NULL DEFAULT 0,
    unsure              integer     NOT NULL DEFAULT 0,
    CONSTRAINT notification_pkey PRIMARY KEY (id),
    CONSTRAINT notification_app_fkey FOREIGN KEY (app_id) REFERENCES pushfan.app (id) ON DELETE CASCADE,
    CONSTRAINT notification_kind_check CHECK (kind IN ('bucket', 'topic', 'direct')),
    CONSTRAINT notification_lane_check CHECK (lane IN ('urgent', 'normal', 'bulk')),
    CONSTRAINT notification_environment_check CHECK (environment IN ('production', 'sandbox')),
    CONSTRAINT notification_counters_check CHECK (
        accepted + unregistered + rejected + expired + cancelled + withdrawn + unknown + dead <= devices)
);
CREATE INDEX IF NOT EXISTS notification_plan_idx ON pushfan.notification (plan_due_at)
    WHERE planned_at IS NULL AND finished_at IS NULL;
CREATE INDEX IF NOT EXISTS notification_app_idx ON pushfan.notification (app_id, id);
CREATE INDEX IF NOT EXISTS notification_key_idx ON pushfan.notification (app_id, key);
CREATE INDEX IF NOT EXISTS notification_unfinished_idx ON pushfan.notification (id) WHERE finished_at IS NULL;

-- Deliveries that one task carries: up to chunk_size positions of one channel and lane.
--
-- notification_ids and attempts hold one element that all positions share, or one for each position.
-- The owner writes the whole result vector at each flush; takeover reads nothing else.
-- lease_until, fence, owner, issued and result stay out of every index, so that flushes are HOT updates.
CREATE TABLE IF NOT EXISTS pushfan.chunk (
    id                bigint      GENERATED ALWAYS AS IDENTITY,
    app_id            integer     NOT NULL,
    channel_id        integer     NOT NULL,
    lane              text        NOT NULL,
    notification_ids  bigint[]    NOT NULL,
    device_ids        bigint[]    NOT NULL,
    -- attempts spent before this chunk
    attempts          smallint[]  NOT NULL DEFAULT '{0}',
    -- earlier answers, for each position, of chunks made from retries
    earlier           jsonb,
    -- the vendor request that each position belongs to, where a vendor can recognise a repeat
    request_tags      text[],
    -- the last instant at which any of the positions may still be sent
    expires_at        timestamptz NOT NULL,
    -- its place among the others of its channel and lane; a chunk that was begun goes a little ahead of it
    queued_at         timestamptz NOT NULL DEFAULT now(),
    ready_at          timestamptz NOT NULL DEFAULT now(),
    published_at      timestamptz,
    -- since the last claim; each waits twice as long for the next
    publications      smallint    NOT NULL DEFAULT 0,
    fence             integer     NOT NULL DEFAULT 0,
    owner             text,
    lease_until       timestamptz,
    strikes           smallint    NOT NULL DEFAULT 0,
    -- positions 0 .. issued-1 were handed to the send engine
    issued            integer     NOT NULL DEFAULT 0,
    result            bytea       NOT NULL,
    CONSTRAINT chunk_pkey PRIMARY KEY (id),
    CONSTRAINT chunk_lane_check CHECK (lane IN ('urgent', 'normal', 'bulk')),
    CONSTRAINT chunk_result_check CHECK (octet_length(result) = cardinality(device_ids)),
    CONSTRAINT chunk_notifications_check CHECK (
        cardinality(notification_ids) IN (1, cardinality(device_ids))),
    CONSTRAINT chunk_attempts_check CHECK (cardinality(attempts) IN (1, cardinality(device_ids)))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 200);
-- dispatch: the next due chunks of a channel and lane
CREATE INDEX IF NOT EXISTS chunk_due_idx ON pushfan.chunk (channel_id, lane, ready_at);
-- dispatch: how many of them are out
CREATE INDEX IF NOT EXISTS chunk_out_idx ON pushfan.chunk (channel_id, lane) WHERE published_at IS NOT NULL;
-- sweep: chunks that may no longer be sent
CREATE INDEX IF NOT EXISTS chunk_expiry_idx ON pushfan.chunk (expires_at);

-- Deliveries that wait for another attempt, each on its own account.
CREATE TABLE IF NOT EXISTS pushfan.retry (
    notification_id  bigint      NOT NULL,
    device_id        bigint      NOT NULL,
    app_id           integer     NOT NULL,
    channel_id       integer     NOT NULL,
    lane             text        NOT NULL,
    attempts         smallint    NOT NULL,
    due_at           timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL,
    request_tag      text,
    earlier          jsonb       NOT NULL,
    CONSTRAINT retry_pkey PRIMARY KEY (notification_id, device_id)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
-- due retries of each channel
CREATE INDEX IF NOT EXISTS retry_due_idx ON pushfan.retry (channel_id, due_at);
-- retries that may no longer be sent, whatever their channel's circuit says
CREATE INDEX IF NOT EXISTS retry_expiry_idx ON pushfan.retry (expires_at);

-- What finally became of each delivery: inserted once, never updated. The primary key is an alarm, not a
-- mechanism. Partitioned by notification id, that is by day.
CREATE TABLE IF NOT EXISTS pushfan.delivery (
    notification_id  bigint      NOT NULL,
    device_id        bigint      NOT NULL,
    at               timestamptz NOT NULL DEFAULT clock_timestamp(),
    outcome          pushfan.outcome NOT NULL,
    attempts         smallint    NOT NULL,
    reason           text,
    -- the vendor's own id of the push
    provider_id      text,
    earlier          jsonb,
    CONSTRAINT delivery_pkey PRIMARY KEY (notification_id, device_id)
) PARTITION BY RANGE (notification_id);
-- a user's history, through the user's devices
CREATE INDEX IF NOT EXISTS delivery_device_idx ON pushfan.delivery (device_id);
CREATE TABLE IF NOT EXISTS pushfan.delivery_default PARTITION OF pushfan.delivery DEFAULT;

-- Make the partitions of today and the next days. Created and then attached: CREATE … PARTITION OF would wait
-- for open inserts.
CREATE OR REPLACE FUNCTION pushfan.make_partitions(days integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    day date;
    part text;
    lower_id bigint;
    upper_id bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('pushfan.make_partitions'));
    FOR ahead IN 0 .. days LOOP
        day := (now() AT TIME ZONE 'UTC')::date + ahead;
        part := 'delivery_' || to_char(day, 'YYYYMMDD');
        lower_id := pushfan.notification_id_at(day::timestamp AT TIME ZONE 'UTC');
        upper_id := pushfan.notification_id_at((day + 1)::timestamp AT TIME ZONE 'UTC');
        CONTINUE WHEN to_regclass('pushfan.' || part) IS NOT NULL;
        CONTINUE WHEN EXISTS (SELECT FROM pushfan.delivery_default
                              WHERE notification_id >= lower_id AND notification_id < upper_id);
        EXECUTE format('CREATE TABLE pushfan.%I (LIKE pushfan.delivery INCLUDING DEFAULTS)', part);
        EXECUTE format('ALTER TABLE pushfan.delivery ATTACH PARTITION pushfan.%I FOR VALUES FROM (%s) TO (%s)',
                       part, lower_id, upper_id);
    END LOOP;
END
$$;
SELECT pushfan.make_partitions(2);

-- Drop the days that are older than some days: a whole partition at a time, and none that somebody reads just now.
CREATE OR REPLACE FUNCTION pushfan.drop_partitions(days integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    part text;
    dropped integer := 0;
BEGIN
    SET LOCAL lock_timeout = '500ms';
    FOR part IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'pushfan.delivery'::regclass AND c.relname ~ '^delivery_[0-9]{8}$'
          AND to_date(right(c.relname, 8), 'YYYYMMDD') < (now() AT TIME ZONE 'UTC')::date - days
        ORDER BY c.relname
    LOOP
        BEGIN
            EXECUTE format('DROP TABLE pushfan.%I', part);
            dropped := dropped + 1;
        EXCEPTION WHEN lock_not_available THEN
            NULL;  -- another time
        END;
    END LOOP;
    RETURN dropped;
END
$$;

-- Provisional acceptances of a vendor that must be asked later which tokens it really knew.
CREATE TABLE IF NOT EXISTS pushfan.receipt_poll (
    id          bigint      GENERATED ALWAYS AS IDENTITY,
    channel_id  integer     NOT NULL,
    message_id  text        NOT NULL,
    device_ids  bigint[]    NOT NULL,
    tokens      text[]      NOT NULL,
    loaded_at   timestamptz NOT NULL,
    due_at      timestamptz NOT NULL,
    attempts    smallint    NOT NULL DEFAULT 0,
    CONSTRAINT receipt_poll_pkey PRIMARY KEY (id),
    CONSTRAINT receipt_poll_members_check CHECK (cardinality(device_ids) = cardinality(tokens))
);
CREATE INDEX IF NOT EXISTS receipt_poll_due_idx ON pushfan.receipt_poll (due_at);

-- What will not move by itself any more.
CREATE TABLE IF NOT EXISTS pushfan.dead_letter (
    id               bigint      GENERATED ALWAYS AS IDENTITY,
    app_id           integer,
    -- undecodable: a broker message that is not ours. invalid: an event with problems. conflict: a known id with
    -- other content. poison: a delivery that killed its workers. exhausted: one that spent all its attempts.
    kind             text        NOT NULL,
    error            text        NOT NULL,
    body             text,
    notification_id  bigint,
    device_id        bigint,
    at               timestamptz NOT NULL DEFAULT clock_timestamp(),
    replayed_as      bigint,
    CONSTRAINT dead_letter_pkey PRIMARY KEY (id),
    CONSTRAINT dead_letter_kind_check CHECK (kind IN ('undecodable', 'invalid', 'conflict', 'poison', 'exhausted'))
);
-- status and doctor: how many nobody has replayed, by kind
CREATE INDEX IF NOT EXISTS dead_letter_kind_idx ON pushfan.dead_letter (kind, at) WHERE replayed_as IS NULL;
-- the letters of one notification
CREATE INDEX IF NOT EXISTS dead_letter_notification_idx
    ON pushfan.dead_letter (notification_id) WHERE notification_id IS NOT NULL;

-- Who runs: one row for each worker, written by its dispatcher.
CREATE TABLE IF NOT EXISTS pushfan.worker (
    name        text        NOT NULL,
    lanes       text[]      NOT NULL,
    processes   integer     NOT NULL,
    version     text        NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    seen_at     timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT worker_pkey PRIMARY KEY (name)
);

-- ---------------------------------------------------------------------------------------------- limits

-- How fast a channel may send just now, in pushes a second. Traffic that flows again after a stop begins at 200
-- and doubles every second: a provider that has just recovered is not met by everything that waited.
CREATE OR REPLACE FUNCTION pushfan.channel_rate(rate_per_second integer, ramping_since timestamptz)
RETURNS double precision LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN ramping_since IS NULL THEN rate_per_second ELSE least(rate_per_second, 200 * 2 ^ least(30,
        greatest(0, extract(epoch FROM clock_timestamp() - ramping_since)))) END::double precision
$$;

-- How far a lane may run ahead of its channel's rate: bulk hardly, urgent as far as it must.
CREATE OR REPLACE FUNCTION pushfan.lane_horizon(lane text) RETURNS interval LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE lane WHEN 'urgent' THEN interval '1 day' WHEN 'normal' THEN interval '1 second'
                     ELSE interval '500 milliseconds' END
$$;

-- How many chunks of one lane a channel may have out: a third of the processes that work for the lane, so that a
-- provider that hangs leaves the others what they need. No limit where no worker was heard of lately.
CREATE OR REPLACE FUNCTION pushfan.lane_share(wanted text) RETURNS integer LANGUAGE sql STABLE AS $$
    SELECT greatest(1, sum(w.processes) / 3)::integer FROM pushfan.worker w
    WHERE w.seen_at > now() - interval '10 seconds' AND wanted = ANY (w.lanes)
    HAVING count(*) > 0
$$;

-- ---------------------------------------------------------------------------------------------- intake

-- What makes two events with one id the same: everything but the id, in jsonb's own order of keys.
CREATE OR REPLACE FUNCTION pushfan.event_digest(event jsonb) RETURNS bytea
LANGUAGE sql IMMUTABLE AS $$
    SELECT sha256(convert_to((event - 'id')::text, 'UTF8'))
$$;

-- The last instant at which an event taken in now may be sent, 28 days ahead at most. A ttl of 0 means one attempt
-- and nothing stored by the vendor; that attempt may take a minute to come.
CREATE OR REPLACE FUNCTION pushfan.event_expiry(event jsonb) RETURNS timestamptz
LANGUAGE sql VOLATILE AS $$
    SELECT least(clock_timestamp() + interval '28 days', coalesce(
        (event ->> 'expires_at')::timestamptz,
        clock_timestamp() + make_interval(secs => CASE
            WHEN event ->> 'ttl_seconds' = '0' THEN 60
            WHEN event ? 'ttl_seconds' THEN (event ->> 'ttl_seconds')::double precision
            WHEN event ->> 'kind' = 'bucket' THEN 3600
            ELSE 86400 END)))
$$;

-- Take in an array of events in wire form, validated before. One row for each event, in its order:
-- taken_in (new), repeated (known id, same content), conflict (known id, other content), unknown_app.
-- Keys are inserted in order, so that two callers with common keys do not deadlock, though notifications are numbered
-- in the order of the events; the answer is read by a second statement, which sees keys that another transaction
-- committed meanwhile. It runs with its owner's rights: who may call it may push, and needs no right on any table.
CREATE OR REPLACE FUNCTION pushfan.take_in(events jsonb)
RETURNS TABLE (event_id text, notification_id bigint, status text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    created bigint[];
BEGIN
    WITH incoming AS (
        SELECT DISTINCT ON (a.id, e.value ->> 'id' COLLATE "C")
               a.id AS app_id, e.value ->> 'id' AS key, e.value ->> 'kind' AS kind, e.value AS event, e.ordinality
        FROM jsonb_array_elements(events) WITH ORDINALITY AS e
        JOIN pushfan.app a ON a.name = e.value ->> 'app'
        ORDER BY a.id, e.value ->> 'id' COLLATE "C", e.ordinality
    ), numbered AS MATERIALIZED (
        SELECT i.*, pushfan.next_notification_id() AS id FROM incoming i ORDER BY i.ordinality
    ), fresh AS (
        INSERT INTO pushfan.event_key AS k (app_id, key, notification_id, digest)
        SELECT app_id, key, id, pushfan.event_digest(event) FROM numbered ORDER BY app_id, key COLLATE "C"
        ON CONFLICT DO NOTHING
        RETURNING k.app_id, k.key, k.notification_id
    ), stored AS (
        INSERT INTO pushfan.notification AS n
            (id, app_id, key, kind, event, lane, is_lane_fixed, target_id, recipients, excluded_user,
             excluded_providers, environment, expires_at)
        SELECT fresh.notification_id, i.app_id, i.key, i.kind, i.event,
               coalesce(i.event ->> 'lane', CASE i.kind WHEN 'direct' THEN 'urgent' ELSE 'normal' END),
               i.event ? 'lane',
               t.id,
               CASE i.kind WHEN 'direct' THEN ARRAY(
                   SELECT DISTINCT u.value COLLATE "C"
                   FROM jsonb_array_elements_text(i.event -> 'users') AS u ORDER BY 1) END,
               i.event ->> 'actor',
               ARRAY(SELECT s.key FROM jsonb_each(coalesce(i.event -> 'message', '{}')) AS s
                     WHERE s.value -> 'enabled' = 'false'),
               i.event ->> 'environment',
               pushfan.event_expiry(i.event)
        FROM fresh
        JOIN numbered i USING (app_id, key)
        LEFT JOIN pushfan.target t ON t.app_id = i.app_id AND t.kind = i.kind
              AND t.scope = coalesce(i.event ->> 'scope', 'app') AND t.name = i.event ->> i.kind
        RETURNING n.id
    )
    SELECT coalesce(array_agg(id), '{}') INTO created FROM stored;

    RETURN QUERY
    SELECT e.value ->> 'id', k.notification_id,
           CASE WHEN k.app_id IS NULL THEN 'unknown_app'
                WHEN k.notification_id = ANY (created)
                     AND row_number() OVER (PARTITION BY k.notification_id ORDER BY e.ordinality) = 1
                THEN 'taken_in'
                WHEN k.digest <> pushfan.event_digest(e.value) THEN 'conflict'
                ELSE 'repeated' END
    FROM jsonb_array_elements(events) WITH ORDINALITY AS e
    LEFT JOIN pushfan.app a ON a.name = e.value ->> 'app'
    -- one look into the index for each event: while the table seems small, a plain join reads all keys of the app
    LEFT JOIN LATERAL (SELECT * FROM pushfan.event_key WHERE app_id = a.id AND key = e.value ->> 'id' LIMIT 1) k ON true
    ORDER BY e.ordinality;
END
$$;

-- ---------------------------------------------------------------------------------------------- webhooks

-- Where an app wants to be told of feedback and of finished notifications. The signing secret is derived from the salt and
-- a secret of the servers: who reads this table cannot sign.
CREATE TABLE IF NOT EXISTS pushfan.webhook (
    id                integer     GENERATED ALWAYS AS IDENTITY,
    app_id            integer     NOT NULL,
    name              text        NOT NULL,
    url               text        NOT NULL,
    events            text[]      NOT NULL DEFAULT '{feedback,finished}',
    salt              bytea       NOT NULL,
    -- the secret before also signs until this instant
    previous_salt     bytea,
    previous_until    timestamptz,
    -- active: told. disabled: not told, by its admin or because it failed for too long; the reason says which.
    state             text        NOT NULL DEFAULT 'active',
    state_reason      text,
    state_changed_at  timestamptz NOT NULL DEFAULT now(),
    -- the last entry that the receiver has confirmed, and the last one of the batch that is being told
    told_xid          xid8        NOT NULL,
    told_id           bigint      NOT NULL,
    batch_xid         xid8,
    batch_id          bigint,
    -- in a row
    failures          integer     NOT NULL DEFAULT 0,
    failing_since     timestamptz,
    last_error        text,
    last_told_at      timestamptz,
    due_at            timestamptz NOT NULL DEFAULT now(),
    -- grows with each claim and change: what an earlier teller reports is ignored
    fence             bigint      NOT NULL DEFAULT 0,
    created_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT webhook_pkey PRIMARY KEY (id),
    CONSTRAINT webhook_app_name_key UNIQUE (app_id, name),
    CONSTRAINT webhook_app_fkey FOREIGN KEY (app_id) REFERENCES pushfan.app (id) ON DELETE CASCADE,
    CONSTRAINT webhook_name_check CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$'),
    CONSTRAINT webhook_events_check CHECK (events <@ '{feedback,finished}' AND cardinality(events) > 0),
    CONSTRAINT webhook_state_check CHECK (state IN ('active', 'disabled')),
    CONSTRAINT webhook_batch_check CHECK ((batch_xid IS NULL) = (batch_id IS NULL))
);

-- Notifications that finished while an active webhook of their app wanted to know. Read as feedback is, by (xid, id); ids are
-- of feedback's sequence, so that a webhook has one place in both.
CREATE TABLE IF NOT EXISTS pushfan.finish (
    xid              xid8        NOT NULL DEFAULT pg_current_xact_id(),
    id               bigint      NOT NULL DEFAULT nextval('pushfan.feedback_id_seq'),
    app_id           integer     NOT NULL,
    notification_id  bigint      NOT NULL,
    at               timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT finish_pkey PRIMARY KEY (app_id, xid, id),
    CONSTRAINT finish_app_fkey FOREIGN KEY (app_id) REFERENCES pushfan.app (id) ON DELETE CASCADE
);
-- house-keeping
CREATE INDEX IF NOT EXISTS finish_at_idx ON pushfan.finish (at);

CREATE OR REPLACE FUNCTION pushfan.note_finish() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO pushfan.finish (app_id, notification_id)
    SELECT NEW.app_id, NEW.id
    WHERE EXISTS (SELECT FROM pushfan.webhook w
                  WHERE w.app_id = NEW.app_id AND w.state = 'active' AND 'finished' = ANY (w.events));
    RETURN NULL;
END
$$;
-- Not fired by the updates that end nothing.
CREATE OR REPLACE TRIGGER notification_finish AFTER UPDATE OF finished_at ON pushfan.notification
    FOR EACH ROW WHEN (OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL)
    EXECUTE FUNCTION pushfan.note_finish();

-- ---------------------------------------------------------------------------------------------- rights

-- Roles without a login, to be granted to those of your services. They belong to the whole server: whoever applies this
-- without the right to make roles does without them, and services then connect as the owner.
--     pushfan_worker  delivers: everything but keys, apps, and who is subscribed to what
--     pushfan_api     takes in, registers and administers: everything but what was delivered, and who works
--     pushfan_outbox  publishes inside its own transactions, and reads nothing
--     pushfan_reader  reads, but no token, no secret and no webhook's address, which may hold one
-- What runs with its owner's rights is open to those alone who are named here.
REVOKE ALL ON FUNCTION pushfan.take_in(jsonb), pushfan.make_partitions(integer), pushfan.drop_partitions(integer),
    pushfan.note_finish() FROM PUBLIC;
DO $$
DECLARE
    wanted name;
    readable text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['pushfan_worker', 'pushfan_api', 'pushfan_outbox', 'pushfan_reader'] LOOP
        IF to_regrole(wanted) IS NULL
           AND (SELECT r.rolsuper OR r.rolcreaterole FROM pg_roles r WHERE r.rolname = current_user) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;  -- made by another database of this server, just now
            END;
        END IF;
        IF to_regrole(wanted) IS NOT NULL THEN
            EXECUTE format('GRANT USAGE ON SCHEMA pushfan TO %I', wanted);
        END IF;
    END LOOP;
    IF to_regrole('pushfan_worker') IS NOT NULL THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pushfan TO pushfan_worker;
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA pushfan TO pushfan_worker;
        REVOKE ALL ON pushfan.api_key FROM pushfan_worker;
        REVOKE INSERT, UPDATE, DELETE ON pushfan.schema_version, pushfan.app, pushfan.target, pushfan.subscription,
            pushfan.user_group, pushfan.group_member, pushfan.promotion
            FROM pushfan_worker;
        REVOKE INSERT, DELETE ON pushfan.channel, pushfan.webhook FROM pushfan_worker;
        GRANT EXECUTE ON FUNCTION pushfan.take_in(jsonb), pushfan.make_partitions(integer),
            pushfan.drop_partitions(integer) TO pushfan_worker;
    END IF;
    IF to_regrole('pushfan_api') IS NOT NULL THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pushfan TO pushfan_api;
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA pushfan TO pushfan_api;
        REVOKE INSERT, UPDATE, DELETE ON pushfan.schema_version, pushfan.worker FROM pushfan_api;
        -- A user or an app may be forgotten; no outcome may be made up.
        REVOKE INSERT, UPDATE ON pushfan.delivery FROM pushfan_api;
        GRANT EXECUTE ON FUNCTION pushfan.take_in(jsonb) TO pushfan_api;
    END IF;
    IF to_regrole('pushfan_outbox') IS NOT NULL THEN
        GRANT EXECUTE ON FUNCTION pushfan.take_in(jsonb) TO pushfan_outbox;
    END IF;
    IF to_regrole('pushfan_reader') IS NOT NULL THEN
        FOR readable IN
            SELECT format('GRANT SELECT (%s) ON pushfan.%I TO pushfan_reader',
                          string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum), c.relname)
            FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            WHERE c.relnamespace = 'pushfan'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
              AND a.attname !~ '^(tokens?|hash|secrets?|url|(previous_)?salt)$'
            GROUP BY c.relname
        LOOP
            EXECUTE readable;
        END LOOP;
        GRANT SELECT ON pushfan.delivery_default TO pushfan_reader;
    END IF;
END
$$;

INSERT INTO pushfan.schema_version (version)
SELECT 8 WHERE NOT EXISTS (SELECT FROM pushfan.schema_version);
