-- Keys of the HTTP API get names, several roles and, for operators, all apps; targets say whom they admit.
-- No version before wrote keys; one that was written by hand keeps its role and is called by its number.
ALTER TABLE pushfan.api_key
    ALTER COLUMN app_id DROP NOT NULL,
    ADD COLUMN name text,
    ADD COLUMN roles text[];
UPDATE pushfan.api_key SET name = 'key-' || id, roles = ARRAY[role];
ALTER TABLE pushfan.api_key
    ALTER COLUMN name SET NOT NULL,
    ALTER COLUMN roles SET NOT NULL,
    DROP COLUMN role,
    ADD CONSTRAINT api_key_prefix_key UNIQUE (prefix),
    ADD CONSTRAINT api_key_name_check CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$'),
    ADD CONSTRAINT api_key_roles_check CHECK (roles <@ '{publish,register,admin}' AND cardinality(roles) > 0),
    ADD CONSTRAINT api_key_lanes_check CHECK (lanes <@ '{urgent,normal,bulk}' AND cardinality(lanes) > 0);
CREATE INDEX api_key_name_idx ON pushfan.api_key (app_id, name);

ALTER TABLE pushfan.target
    ADD COLUMN admits text NOT NULL DEFAULT 'backend',
    ADD CONSTRAINT target_admits_check CHECK (admits IN ('backend', 'users'));
