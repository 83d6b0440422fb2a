-- Dead letters are counted by kind and found by notification, however many there are.
CREATE INDEX dead_letter_kind_idx ON pushfan.dead_letter (kind, at) WHERE replayed_as IS NULL;
CREATE INDEX dead_letter_notification_idx ON pushfan.dead_letter (notification_id) WHERE notification_id IS NOT NULL;
