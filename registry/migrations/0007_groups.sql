-- Pushes for one environment alone; access rules of targets. The tables of groups and promotions are made by
-- schema.sql.
ALTER TABLE pushfan.notification
    ADD COLUMN environment text,
    ADD CONSTRAINT notification_environment_check CHECK (environment IN ('production', 'sandbox'));

-- A user's own target admitted its owner alone when it admitted users.
ALTER TABLE pushfan.target
    ADD COLUMN senders text NOT NULL DEFAULT 'backend',
    DROP CONSTRAINT target_admits_check,
    ADD CONSTRAINT target_admits_check CHECK (admits ~ '^(backend|members|users|group:.+)$'),
    ADD CONSTRAINT target_senders_check CHECK (senders ~ '^(backend|members|users|group:.+)$');
UPDATE pushfan.target SET admits = 'members' WHERE admits = 'users' AND scope LIKE 'user:%';
