-- name: put
-- A group begins, if it is not there.
INSERT INTO pushfan.user_group (app_id, id) VALUES (%(app_id)s, %(group_id)s)
ON CONFLICT ON CONSTRAINT user_group_pkey DO NOTHING

-- name: get
-- One group with how many members it has.
SELECT g.id, g.created_at,
       (SELECT count(*) FROM pushfan.group_member m WHERE m.app_id = g.app_id AND m.group_id = g.id)::integer AS members
FROM pushfan.user_group g
WHERE g.app_id = %(app_id)s AND g.id = %(group_id)s

-- name: list_all
-- A page of groups.
SELECT g.id, g.created_at,
       (SELECT count(*) FROM pushfan.group_member m WHERE m.app_id = g.app_id AND m.group_id = g.id)::integer AS members
FROM pushfan.user_group g
WHERE g.app_id = %(app_id)s AND g.id > %(after)s
ORDER BY g.id
LIMIT %(limit)s

-- name: add_members
-- Users belong to the group from now on. In order, since two callers may add the same ones.
INSERT INTO pushfan.group_member (app_id, group_id, user_id)
SELECT %(app_id)s, %(group_id)s, u.user_id FROM unnest(%(users)b::text[]) AS u (user_id)
ORDER BY u.user_id COLLATE "C"
ON CONFLICT ON CONSTRAINT group_member_pkey DO NOTHING

-- name: remove_member
-- A user belongs to it no more. Waits for whoever subscribes the user as a member just now.
DELETE FROM pushfan.group_member m
WHERE m.app_id = %(app_id)s AND m.group_id = %(group_id)s AND m.user_id = %(user_id)s

-- name: end_subscriptions
-- What belongs to the group says nothing to a user who has left it.
DELETE FROM pushfan.subscription s
USING pushfan.target t
WHERE s.app_id = %(app_id)s AND s.user_id = %(user_id)s AND t.id = s.target_id
  AND t.scope = 'group:' || %(group_id)s::text

-- name: hold_membership
-- Whether a user is a member, who then stays one until this transaction ends.
SELECT m.user_id FROM pushfan.group_member m
WHERE m.app_id = %(app_id)s AND m.group_id = %(group_id)s AND m.user_id = %(user_id)s
FOR KEY SHARE

-- name: list_members
-- A page of a group's members.
SELECT m.user_id FROM pushfan.group_member m
WHERE m.app_id = %(app_id)s AND m.group_id = %(group_id)s AND m.user_id > %(after)s
ORDER BY m.user_id
LIMIT %(limit)s

-- name: list_by_user
-- The groups of a user.
SELECT m.group_id FROM pushfan.group_member m
WHERE m.app_id = %(app_id)s AND m.user_id = %(user_id)s AND m.group_id > %(after)s
ORDER BY m.group_id
LIMIT %(limit)s

-- name: drop_members
-- Some of a group's members.
WITH held AS MATERIALIZED (
    SELECT m.user_id FROM pushfan.group_member m
    WHERE m.app_id = %(app_id)s AND m.group_id = %(group_id)s
    ORDER BY m.user_id
    LIMIT %(limit)s
    FOR UPDATE
)
DELETE FROM pushfan.group_member m USING held
WHERE m.app_id = %(app_id)s AND m.group_id = %(group_id)s AND m.user_id = held.user_id

-- name: drop
-- A group, whose members and targets are gone.
DELETE FROM pushfan.user_group g WHERE g.app_id = %(app_id)s AND g.id = %(group_id)s
