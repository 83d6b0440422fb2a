-- name: ask_later
-- Ask the vendor's status API about a provisional acceptance some time after.
INSERT INTO pushfan.receipt_poll (channel_id, message_id, device_ids, tokens, loaded_at, due_at)
VALUES (%(channel_id)s, %(message_id)s, %(device_ids)s, %(tokens)s, %(loaded_at)s, clock_timestamp() + %(delay)s)

-- name: due_channels
-- Channels with requests to ask about, while their circuit lets anything through.
SELECT DISTINCT p.channel_id FROM pushfan.receipt_poll p JOIN pushfan.channel c ON c.id = p.channel_id
WHERE p.due_at <= now() AND c.circuit <> 'open'

-- name: take_due
-- Put off what is picked: nobody asks twice at a time, and a poller that dies loses nothing.
WITH due AS MATERIALIZED (
    SELECT p.id FROM pushfan.receipt_poll p
    WHERE p.channel_id = %(channel_id)s AND p.due_at <= now()
    ORDER BY p.due_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE pushfan.receipt_poll p
SET attempts = p.attempts + 1,
    due_at = now() + greatest(%(put_off)s, %(first_delay)s * (2 ^ least(p.attempts + 1, 6)))
FROM due WHERE p.id = due.id
RETURNING p.id, p.channel_id, p.message_id, p.device_ids, p.tokens, p.loaded_at, p.attempts

-- name: close
DELETE FROM pushfan.receipt_poll p WHERE p.id = ANY (%(ids)s)
