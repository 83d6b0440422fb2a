-- Pushfan's outbox: lets any PostgreSQL (14 or newer, no extension) publish events inside its own transactions.
--
-- Apply it to the database that your data lives in, by `pushfan outbox install --url ...`, or
--     psql --single-transaction --set ON_ERROR_STOP=1 --file outbox.sql
-- Apply it again at any time: nothing changes, or an older version becomes this one. Pushfan's own database has it
-- too. All objects live in the schema `pushfan`.
--
--     INSERT INTO pushfan.outbox (event) VALUES ('{"version": 1, "kind": "topic", ...}')      an event in wire form
--     SELECT pushfan.watch('public.orders', bucket => 'orders', app => 'shop')                a table's writes as events
--
-- `pushfan relay` moves the rows into Pushfan and deletes them there. Whoever may insert into the outbox may push.

DO $$
BEGIN
    -- CREATE SCHEMA IF NOT EXISTS asks for a right even when there is nothing to do.
    IF to_regnamespace('pushfan') IS NULL THEN
        CREATE SCHEMA pushfan;
    END IF;
END
$$;

-- One row: which version this is, and a name that no other outbox has.
CREATE TABLE IF NOT EXISTS pushfan.outbox_installation (
    is_only       boolean     NOT NULL DEFAULT true,
    version       integer     NOT NULL,
    -- part of the ids of events that bring none: those of two databases must never be alike
    name          text        NOT NULL DEFAULT substr(replace(gen_random_uuid()::text, '-', ''), 1, 12),
    installed_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT outbox_installation_pkey PRIMARY KEY (is_only),
    CONSTRAINT outbox_installation_only_check CHECK (is_only)
);

DO $$
BEGIN
    IF EXISTS (SELECT FROM pushfan.outbox_installation WHERE version > 1) THEN
        RAISE EXCEPTION 'the outbox in this database is newer than this file: use the file of the newer Pushfan';
    END IF;
END
$$;

-- Events on their way to Pushfan: inserted by the producer's transaction, deleted by the relay once taken in.
--
-- Order: by id, for each app, among the rows that are visible. An id is given after the row locks of what the event
-- is about were taken, so of two events about one object, or of which one was committed before the other was
-- written, the earlier has the smaller id and is visible whenever the other is. Transaction numbers would not do:
-- an older transaction may write after a younger one has committed. And since rows are deleted, not passed by a
-- cursor, one that is committed late is found late and never skipped, and an open transaction delays nobody.
CREATE TABLE IF NOT EXISTS pushfan.outbox (
    id          bigint      GENERATED ALWAYS AS IDENTITY,
    app         text        COLLATE "C" NOT NULL
                            GENERATED ALWAYS AS (CASE WHEN jsonb_typeof(event -> 'app') = 'string'
                                                      THEN left(event ->> 'app', 100) ELSE '' END) STORED,
    -- the wire form; without an id it gets one made of the installation's name and this row's id
    event       jsonb       NOT NULL,
    written_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT outbox_pkey PRIMARY KEY (app, id)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);

-- Who moves the rows: one row for each relay, and until when it waits to be told of new ones.
CREATE TABLE IF NOT EXISTS pushfan.outbox_relay (
    name           text        NOT NULL,
    -- only these apps; empty: all
    apps           text[]      NOT NULL,
    started_at     timestamptz NOT NULL DEFAULT now(),
    seen_at        timestamptz NOT NULL DEFAULT now(),
    -- how many events it has moved since it started, and what hinders it
    moved          bigint      NOT NULL DEFAULT 0,
    trouble        text,
    waiting_until  timestamptz NOT NULL DEFAULT '-infinity',
    CONSTRAINT outbox_relay_pkey PRIMARY KEY (name)
) WITH (fillfactor = 50);

-- Wake the relays that wait, and only then: a transaction that notifies takes a lock of the whole server at its
-- commit, so that under load, when relays never wait, writers must not pay for it.
CREATE OR REPLACE FUNCTION pushfan.outbox_ring() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM pushfan.outbox_relay r WHERE r.waiting_until > now()) THEN
        PERFORM pg_notify('pushfan_outbox', '');
    END IF;
    RETURN NULL;
END
$$;
CREATE OR REPLACE TRIGGER outbox_ring AFTER INSERT ON pushfan.outbox
    FOR EACH STATEMENT EXECUTE FUNCTION pushfan.outbox_ring();

-- ---------------------------------------------------------------------------------------------- watch

-- The tables whose writes are bucket writes. `id` names the trigger function: pushfan.watch_<id>.
CREATE TABLE IF NOT EXISTS pushfan.watched (
    id             integer     GENERATED ALWAYS AS IDENTITY,
    relation       regclass    NOT NULL,
    app            text        NOT NULL,
    bucket         text        NOT NULL,
    scope          text        NOT NULL,
    scope_column   text,
    actor_column   text,
    actor_setting  text,
    when_changed   text[],
    lane           text,
    ttl_seconds    integer,
    watched_at     timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT watched_pkey PRIMARY KEY (id),
    CONSTRAINT watched_relation_key UNIQUE (relation)
);

-- Refuse what the events would be refused for, or what could not be watched truly.
CREATE OR REPLACE FUNCTION pushfan.check_watch(w pushfan.watched) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kind pg_class%ROWTYPE;
    missing text;
BEGIN
    SELECT c.* INTO kind FROM pg_class c WHERE c.oid = w.relation;
    IF kind.relkind NOT IN ('r', 'p') OR kind.relpersistence = 't' THEN
        RAISE EXCEPTION '% cannot be watched: only tables can, and no temporary ones', w.relation
            USING ERRCODE = 'wrong_object_type';
    ELSIF kind.relispartition THEN
        RAISE EXCEPTION '% is a partition: watch the partitioned table, which covers all of its partitions', w.relation
            USING ERRCODE = 'wrong_object_type';
    ELSIF EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                  WHERE w.relation IN (i.inhrelid, i.inhparent) AND NOT c.relispartition) THEN
        RAISE EXCEPTION '% inherits or is inherited from: writes through another table would be missed', w.relation
            USING ERRCODE = 'feature_not_supported', HINT = 'Use a partitioned table, or tables of their own.';
    ELSIF NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = w.relation AND i.indisprimary) THEN
        RAISE EXCEPTION '% has no primary key, by which the objects of the bucket are named', w.relation
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = format('ALTER TABLE %s ADD PRIMARY KEY (...), then watch it.', w.relation);
    END IF;
    SELECT c.name INTO missing
    FROM unnest(ARRAY[w.scope_column, w.actor_column] || w.when_changed) AS c (name)
    WHERE c.name IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_attribute a
        WHERE a.attrelid = w.relation AND a.attname = c.name AND a.attnum > 0 AND NOT a.attisdropped)
    LIMIT 1;
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION '% has no column %', w.relation, quote_ident(missing) USING ERRCODE = 'undefined_column';
    ELSIF w.app !~ '^[A-Za-z0-9_.:-]{1,64}$' OR w.bucket !~ '^[A-Za-z0-9_.:-]{1,64}$' THEN
        RAISE EXCEPTION 'app and bucket must be 1 to 64 of the characters A-Z a-z 0-9 _ - . :'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF w.scope_column IS NULL AND w.scope !~ '^(app|(group|user|thing):.{1,255})$' THEN
        RAISE EXCEPTION 'scope must be app, group:<id>, user:<id> or thing:<id>, or with a scope_column group, user or thing'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF w.scope_column IS NOT NULL AND w.scope NOT IN ('group', 'user', 'thing') THEN
        RAISE EXCEPTION 'with a scope_column the scope must be group, user or thing'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF w.lane NOT IN ('urgent', 'normal', 'bulk') OR w.ttl_seconds NOT BETWEEN 0 AND 2419200 THEN
        RAISE EXCEPTION 'lane must be urgent, normal or bulk, and ttl_seconds at most 28 days'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- An unknown setting is no error, a malformed name is.
    PERFORM current_setting(w.actor_setting, true);
END
$$;

-- What is read of a row of a transition table: its object, scope, actor and the values whose change counts.
-- The parts of a composite key are joined by "/"; a "/" or "%" in them is written %2F, %25.
CREATE OR REPLACE FUNCTION pushfan.watched_row(w pushfan.watched) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH key AS (
        SELECT quote_ident(a.attname) AS name, k.place, cardinality(i.indkey::smallint[]) AS parts
        FROM pg_index i
        CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        WHERE i.indrelid = w.relation AND i.indisprimary AND k.place <= i.indnkeyatts
    )
    SELECT 'SELECT '
        || string_agg(CASE parts WHEN 1 THEN 'r.' || name || '::text'
                      ELSE 'replace(replace(r.' || name || '::text, ''%'', ''%25''), ''/'', ''%2F'')' END,
                      ' || ''/'' || ' ORDER BY place)
        || ' COLLATE "C" AS object, '
        || CASE WHEN w.scope_column IS NULL THEN quote_literal(w.scope) || '::text'
                ELSE quote_literal(w.scope || ':') || ' || r.' || quote_ident(w.scope_column) || '::text' END
        || ' COLLATE "C" AS scope, '
        || 'coalesce('
        || CASE WHEN w.actor_setting IS NULL THEN 'NULL::text'
                ELSE 'nullif(current_setting(' || quote_literal(w.actor_setting) || ', true), '''')' END
        || CASE WHEN w.actor_column IS NULL THEN '' ELSE ', r.' || quote_ident(w.actor_column) || '::text' END
        || ') AS actor, true AS is_there, ROW('
        || coalesce((SELECT string_agg('r.' || quote_ident(c.name), ', ') FROM unnest(w.when_changed) AS c (name)), '')
        || ') AS watched'
    FROM key
$$;

-- What all events of a table say alike, for one change.
CREATE OR REPLACE FUNCTION pushfan.watched_constant(w pushfan.watched, change text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT quote_literal(jsonb_strip_nulls(jsonb_build_object(
        'version', 1, 'kind', 'bucket', 'app', w.app, 'bucket', w.bucket, 'change', change,
        'lane', w.lane, 'ttl_seconds', w.ttl_seconds))) || '::jsonb'
$$;

-- The event of one row, as an expression over object, scope, actor and change. A constant and what differs: to build
-- the whole for each row took 5 microseconds, this takes 2.
CREATE OR REPLACE FUNCTION pushfan.watched_event(w pushfan.watched) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'CASE v.change WHEN ''updated'' THEN ' || pushfan.watched_constant(w, 'updated')
        || ' WHEN ''created'' THEN ' || pushfan.watched_constant(w, 'created')
        || ' ELSE ' || pushfan.watched_constant(w, 'deleted') || ' END || jsonb_build_object(''object'', v.object'
        || CASE WHEN w.scope = 'app' THEN '' ELSE ', ''scope'', v.scope' END
        || CASE WHEN coalesce(w.actor_column, w.actor_setting) IS NULL THEN '' ELSE ', ''actor'', v.actor' END || ')'
$$;

-- The body of a table's trigger function. Names are quoted and nothing is looked up by a search path, for it runs
-- with its owner's rights: who writes to the table needs no right on anything of Pushfan's.
-- An update that changes the key or the scope takes the object out of one place and puts it into another.
CREATE OR REPLACE FUNCTION pushfan.watch_body(w pushfan.watched) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format($body$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NOT EXISTS (SELECT FROM new_rows) THEN RETURN NULL; END IF;
        INSERT INTO pushfan.outbox (event)
        SELECT %2$s FROM (SELECT r.*, 'created' AS change FROM (%1$s FROM new_rows r) AS r WHERE r.scope IS NOT NULL) AS v;
    ELSIF TG_OP = 'DELETE' THEN
        IF NOT EXISTS (SELECT FROM old_rows) THEN RETURN NULL; END IF;
        INSERT INTO pushfan.outbox (event)
        SELECT %2$s FROM (SELECT r.*, 'deleted' AS change FROM (%1$s FROM old_rows r) AS r WHERE r.scope IS NOT NULL) AS v;
    ELSE
        IF NOT EXISTS (SELECT FROM new_rows) THEN RETURN NULL; END IF;
        INSERT INTO pushfan.outbox (event)
        SELECT %2$s
        FROM (
            SELECT object, scope, coalesce(n.actor, o.actor) AS actor,
                   CASE WHEN o.is_there IS NULL THEN 'created' WHEN n.is_there IS NULL THEN 'deleted'
                        ELSE 'updated' END AS change
            FROM (%1$s FROM old_rows r) AS o
            FULL JOIN (%1$s FROM new_rows r) AS n USING (object, scope)
            WHERE scope IS NOT NULL AND %3$s
        ) AS v;
    END IF;
    RETURN NULL;
END
$body$,
        pushfan.watched_row(w), pushfan.watched_event(w),
        CASE WHEN w.when_changed IS NULL THEN 'true'
             ELSE '(o.is_there IS NULL OR n.is_there IS NULL OR o.watched *<> n.watched)' END)
$$;

-- Forget tables that were dropped, with the functions of their triggers.
CREATE OR REPLACE FUNCTION pushfan.forget_watched() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone integer;
BEGIN
    FOR gone IN
        DELETE FROM pushfan.watched w WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = w.relation) RETURNING w.id
    LOOP
        EXECUTE format('DROP FUNCTION IF EXISTS pushfan.%I()', 'watch_' || gone);
    END LOOP;
END
$$;

-- Make the writes of a table bucket writes: created, updated and deleted, the object being its primary key as text.
-- Call it again with other words to change it. The caller needs the right to create triggers on the table, and is the
-- role that installed the outbox.
--
-- scope, scope_column     `app`, or `user:u7`; or `user` with the column that says whose; rows without one are silent
-- actor_column, actor_setting
--                         who made the change and gets no push: a column, or a setting of the session such as shop.actor
-- when_changed            an update counts only if one of these columns has changed
-- lane, ttl_seconds       as in the event
CREATE OR REPLACE FUNCTION pushfan.watch(
    relation       regclass,
    bucket         text,
    app            text,
    scope          text     DEFAULT 'app',
    scope_column   text     DEFAULT NULL,
    actor_column   text     DEFAULT NULL,
    actor_setting  text     DEFAULT NULL,
    when_changed   text[]   DEFAULT NULL,
    lane           text     DEFAULT NULL,
    ttl_seconds    integer  DEFAULT NULL
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    w pushfan.watched;
    part regclass;
    owner name;
BEGIN
    PERFORM pushfan.forget_watched();
    w := ROW(0, watch.relation, watch.app, watch.bucket, watch.scope, watch.scope_column, watch.actor_column,
             watch.actor_setting, watch.when_changed, watch.lane, watch.ttl_seconds, now());
    PERFORM pushfan.check_watch(w);
    INSERT INTO pushfan.watched AS t (relation, app, bucket, scope, scope_column, actor_column, actor_setting,
                                      when_changed, lane, ttl_seconds)
    VALUES (w.relation, w.app, w.bucket, w.scope, w.scope_column, w.actor_column, w.actor_setting,
            w.when_changed, w.lane, w.ttl_seconds)
    ON CONFLICT ON CONSTRAINT watched_relation_key DO UPDATE
    SET app = excluded.app, bucket = excluded.bucket, scope = excluded.scope, scope_column = excluded.scope_column,
        actor_column = excluded.actor_column, actor_setting = excluded.actor_setting,
        when_changed = excluded.when_changed, lane = excluded.lane, ttl_seconds = excluded.ttl_seconds
    RETURNING t.* INTO w;
    -- A key of dates must be the same text in every session.
    EXECUTE format('CREATE OR REPLACE FUNCTION pushfan.%I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER '
                   'SET search_path = pg_catalog, pg_temp SET datestyle = ''ISO, YMD'' SET timezone = ''UTC'' AS %L',
                   'watch_' || w.id, pushfan.watch_body(w));
    EXECUTE format('REVOKE ALL ON FUNCTION pushfan.%I() FROM PUBLIC', 'watch_' || w.id);
    SELECT r.rolname INTO owner FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
    WHERE c.oid = 'pushfan.outbox'::regclass AND r.rolname <> current_user;
    IF owner IS NOT NULL THEN
        EXECUTE format('ALTER FUNCTION pushfan.%I() OWNER TO %I', 'watch_' || w.id, owner);
    END IF;
    -- A statement fires the triggers of the table that it names: the whole, or one of its partitions.
    FOR part IN SELECT t.relid FROM pg_partition_tree(w.relation) AS t UNION SELECT w.relation LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER pushfan_watch_insert AFTER INSERT ON %s REFERENCING '
                       'NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION pushfan.%I()', part, 'watch_' || w.id);
        EXECUTE format('CREATE OR REPLACE TRIGGER pushfan_watch_update AFTER UPDATE ON %s REFERENCING '
                       'OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION pushfan.%I()',
                       part, 'watch_' || w.id);
        EXECUTE format('CREATE OR REPLACE TRIGGER pushfan_watch_delete AFTER DELETE ON %s REFERENCING '
                       'OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION pushfan.%I()', part, 'watch_' || w.id);
    END LOOP;
END
$$;

-- End it. What is in the outbox already still goes. Tells whether the table was watched; the caller owns the table.
CREATE OR REPLACE FUNCTION pushfan.unwatch(relation regclass) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    part regclass;
    trigger_name name;
    gone integer;
BEGIN
    PERFORM pushfan.forget_watched();
    DELETE FROM pushfan.watched w WHERE w.relation = unwatch.relation RETURNING w.id INTO gone;
    IF gone IS NULL THEN
        RETURN false;
    END IF;
    FOR part, trigger_name IN
        SELECT t.tgrelid, t.tgname FROM pg_trigger t
        WHERE t.tgfoid = to_regprocedure(format('pushfan.%I()', 'watch_' || gone))
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', trigger_name, part);
    END LOOP;
    EXECUTE format('DROP FUNCTION pushfan.%I()', 'watch_' || gone);
    RETURN true;
END
$$;

-- ---------------------------------------------------------------------------------------------- rights

-- Two roles without a login, to be granted to those of your services. Roles belong to the whole server: whoever may
-- not make them does without, and grants the same to roles of their own.
--     pushfan_outbox  publishes: inserts, and reads nothing
--     pushfan_relay   moves
DO $$
DECLARE
    wanted name;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['pushfan_outbox', 'pushfan_relay'] LOOP
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
    IF to_regrole('pushfan_outbox') IS NOT NULL THEN
        GRANT INSERT ON pushfan.outbox TO pushfan_outbox;
    END IF;
    IF to_regrole('pushfan_relay') IS NOT NULL THEN
        GRANT SELECT, DELETE ON pushfan.outbox TO pushfan_relay;
        GRANT SELECT, INSERT, UPDATE, DELETE ON pushfan.outbox_relay TO pushfan_relay;
        GRANT SELECT ON pushfan.outbox_installation, pushfan.watched TO pushfan_relay;
    END IF;
    -- In Pushfan's own database its workers' role moves, and its readers' role sees.
    IF to_regclass('pushfan.schema_version') IS NOT NULL AND to_regrole('pushfan_worker') IS NOT NULL THEN
        GRANT SELECT, DELETE ON pushfan.outbox TO pushfan_worker;
        GRANT SELECT, INSERT, UPDATE, DELETE ON pushfan.outbox_relay TO pushfan_worker;
        GRANT SELECT ON pushfan.outbox_installation, pushfan.watched TO pushfan_worker;
        REVOKE INSERT, UPDATE, DELETE ON pushfan.outbox_installation, pushfan.watched FROM pushfan_worker;
    END IF;
    IF to_regclass('pushfan.schema_version') IS NOT NULL AND to_regrole('pushfan_reader') IS NOT NULL THEN
        GRANT SELECT ON pushfan.outbox, pushfan.outbox_relay, pushfan.outbox_installation, pushfan.watched
            TO pushfan_reader;
    END IF;
END
$$;

INSERT INTO pushfan.outbox_installation (version) VALUES (1)
ON CONFLICT ON CONSTRAINT outbox_installation_pkey DO UPDATE SET version = excluded.version
WHERE outbox_installation.version <> excluded.version;
