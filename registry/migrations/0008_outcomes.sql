-- How many deliveries of each channel ended, and how: counted from here on.
ALTER TABLE pushfan.channel
    ADD COLUMN outcomes bigint[] NOT NULL DEFAULT '{0,0,0,0,0,0,0,0}',
    ADD CONSTRAINT channel_outcomes_check CHECK (cardinality(outcomes) = 8);
