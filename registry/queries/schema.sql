-- name: version
-- The newest change that was applied.
SELECT max(version) AS version FROM pushfan.schema_version

-- name: serialize_apply
-- Two processes that apply at once take turns.
SELECT pg_advisory_xact_lock(hashtext('pushfan.apply'))

-- name: quiet
-- "already exists, skipping" is not news.
SET LOCAL client_min_messages = warning

-- name: record
-- A change was applied.
INSERT INTO pushfan.schema_version (version) VALUES (%(version)s)
