-- Pushes for one environment alone.
ALTER TABLE pushfan.notification
    ADD COLUMN environment text,
    ADD CONSTRAINT notification_environment_check CHECK (environment IN ('production', 'sandbox'));
