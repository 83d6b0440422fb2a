-- Roles and their rights, functions that run with their owner's, and the outbox: all of it is in schema.sql and
-- events/outbox.sql, which are applied again after this.
SELECT;
