-- Circuits that probe by themselves, traffic that grows after a stop, and a budget for retries.
ALTER TABLE pushfan.channel
    ADD COLUMN retry_budget_at timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN ramping_since timestamptz,
    ADD COLUMN probe_at timestamptz,
    ADD COLUMN failed_probes smallint NOT NULL DEFAULT 0,
    DROP CONSTRAINT channel_circuit_reason_check,
    ADD CONSTRAINT channel_circuit_reason_check CHECK (
        circuit_reason IN ('operator', 'credentials', 'outage', 'throttled', 'mass_invalidation'));

-- What waits for other credentials is from now on probed now and then, too.
UPDATE pushfan.channel SET probe_at = now() WHERE circuit = 'open' AND circuit_reason IN ('credentials', 'outage');

DROP INDEX pushfan.retry_due_idx;
CREATE INDEX retry_due_idx ON pushfan.retry (channel_id, due_at);
CREATE INDEX retry_expiry_idx ON pushfan.retry (expires_at);
