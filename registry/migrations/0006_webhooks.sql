-- Webhooks and the log of finished notifications that they tell: new tables, which are in schema.sql, applied again after
-- this.
SELECT;
