"""A person's rights: export what is stored about a user, and forget it.

Forgetting deletes the user's devices, subscriptions, memberships, feedback and own targets (scope `user:<id>`; those of
a thing, `thing:<id>`, which is its user id), also under the pseudo ids that it had before its login, takes the
user out of notifications and dead letters, and the tokens out of receipts that are to be polled.

Deliveries stay, and so do chunks and retries: they name devices by number, and once the device's row and its
feedback are gone the number belongs to nobody. That keeps planned = open + waiting + final true for every
notification. What was planned for a forgotten device ends `withdrawn`, as for any device that left.

What backends chose themselves is not searched: event ids, and texts of messages, which are cleared some time
after the finish. A message to this user alone is cleared at once, if it has ended.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from functools import partial
from typing import Any, Final

from . import devices, groups, pseudo, subscriptions
from .checks import USER, Problems, refuse
from .database import Connection, Database
from .statements import load

_SQL = load("users")
_ROWS_AT_ONCE: Final = 2_000
# Stands where a list of users must not become empty or a text named the user.
PLACEHOLDER: Final = "forgotten"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """How many rows were deleted, or changed so that they no longer name the user."""

    devices: int
    subscriptions: int
    targets: int
    groups: int
    feedback: int
    notifications: int
    dead_letters: int


def export(connection: Connection, app_id: int, user_id: str, *, limit: int = 1000) -> dict[str, Any]:
    """Collect what is stored about a user as plain JSON values; tokens only by their hash.

    At most the last `limit` of deliveries and the first of everything else; `is_complete` tells whether that
    is all.
    """
    parameters = {"app_id": app_id, "user_id": user_id, "limit": limit}
    lists = {
        "devices": [
            _device(device)
            for device in devices.list_by_user(connection, app_id, user_id, with_retired=True, limit=limit)
        ],
        "subscriptions": [
            {
                "kind": found.target.kind,
                "scope": str(found.target.scope),
                "name": found.target.name,
                "since": found.created_at,
            }
            for found in subscriptions.list_by_user(connection, app_id, user_id, limit=limit)
        ],
        "groups": [
            {"group": group} for group in groups.list_by_user(connection, app_id, user_id, limit=limit)
        ],
        "feedback": connection.execute(_SQL["export_feedback"], parameters).fetchall(),
        "deliveries": connection.execute(_SQL["export_deliveries"], parameters).fetchall(),
    }
    return {
        "user": user_id,
        "is_complete": all(len(rows) < limit for rows in lists.values()),
        **{name: [_plain(row) for row in rows] for name, rows in lists.items()},
    }


def forget(database: Database, app_id: int, user_id: str) -> Forgotten:
    """Forget a user, in transactions of bounded size. Run it again if it was interrupted.

    What the user does meanwhile is new: make sure before that the app no longer registers this user.
    """
    problems = Problems()
    USER(user_id, "user", problems)
    refuse(problems)
    before = database.run(partial(pseudo.list_by_user, app_id=app_id, user_id=user_id))
    done = [_forget_one(database, app_id, one) for one in (*before, user_id)]
    database.run(partial(pseudo.forget, app_id=app_id, user_id=user_id))
    names = [item.name for item in fields(Forgotten)]
    return Forgotten(**{name: sum(getattr(one, name) for one in done) for name in names})


def _forget_one(database: Database, app_id: int, user_id: str) -> Forgotten:
    scope = user_id if user_id.startswith("thing:") else f"user:{user_id}"
    given = {"app_id": app_id, "user_id": user_id, "scope": scope, "limit": _ROWS_AT_ONCE}
    # Memberships first: a member may subscribe.
    memberships = _repeat(database, partial(_delete, "forget_memberships", given))
    subscribers, targets = subscriptions.remove_scope(database, app_id, scope)
    return Forgotten(
        devices=_repeat(database, partial(_forget_devices, given)),
        subscriptions=_repeat(database, partial(_delete, "forget_subscriptions", given)) + subscribers,
        targets=targets,
        groups=memberships,
        feedback=_repeat(database, partial(_delete, "forget_feedback", given)),
        notifications=_walk(database, partial(_scrub_notifications, given)),
        dead_letters=_walk(database, partial(_scrub_letters, given)),
    )


def scrub(text: str, user_id: str) -> str:
    """Replace a user's id in a text, where it stands as a word of its own; JSON stays JSON."""
    pattern = re.compile(rf"(?<![\w-]){re.escape(user_id)}(?![\w-])")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return pattern.sub(PLACEHOLDER, text)
    scrubbed = _scrub_value(value, pattern)
    return text if scrubbed == value else json.dumps(scrubbed, ensure_ascii=False)


def _scrub_value(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return pattern.sub(PLACEHOLDER, value)
    if isinstance(value, list):
        return [_scrub_value(item, pattern) for item in value]
    if isinstance(value, dict):
        return {_scrub_value(key, pattern): _scrub_value(item, pattern) for key, item in value.items()}
    return value


def _repeat(database: Database, step: Callable[[Connection], int]) -> int:
    """Run a bounded step until it finds nothing more to do. Returns the sum."""
    total = 0
    while done := database.run(step):
        total += done
    return total


def _walk(database: Database, step: Callable[[int, Connection], tuple[int | None, int]]) -> int:
    """Run a step over rows in the order of ids, each going on where the last ended. Returns the sum."""
    after: int | None = 0
    total = 0
    while after is not None:
        after, done = database.run(partial(step, after))
        total += done
    return total


def _delete(statement: str, given: Mapping[str, Any], connection: Connection) -> int:
    return connection.execute(_SQL[statement], given).rowcount


def _forget_devices(given: Mapping[str, Any], connection: Connection) -> int:
    ids = [row["id"] for row in connection.execute(_SQL["forget_devices"], given)]
    if ids:
        connection.execute(_SQL["scrub_receipts"], {"ids": ids})
        connection.execute(_SQL["drop_empty_receipts"])
        connection.execute(_SQL["unlink_letters"], {"ids": ids})
    return len(ids)


def _scrub_notifications(
    given: Mapping[str, Any], after: int, connection: Connection
) -> tuple[int | None, int]:
    parameters = {**given, "after": after, "placeholder": PLACEHOLDER}
    page = connection.execute(_SQL["notification_page"], parameters).fetchone()
    if page is None or page["last"] is None:
        return None, 0
    changed = connection.execute(_SQL["scrub_notifications"], {**parameters, "last": page["last"]}).rowcount
    return page["last"], changed


def _scrub_letters(given: Mapping[str, Any], after: int, connection: Connection) -> tuple[int | None, int]:
    # A text may hold the id as it is, or in JSON's ASCII form.
    forms = {given["user_id"], json.dumps(given["user_id"])[1:-1]}
    parameters = {**given, "after": after, "forms": sorted(forms)}
    letters = connection.execute(_SQL["letters_naming"], parameters).fetchall()
    changed = 0
    for letter in letters:
        body, error = letter["body"], scrub(letter["error"], given["user_id"])
        scrubbed = None if body is None else scrub(body, given["user_id"])
        if (scrubbed, error) != (body, letter["error"]):
            connection.execute(_SQL["scrub_letter"], {"id": letter["id"], "body": scrubbed, "error": error})
            changed += 1
    return (letters[-1]["id"] if letters else None), changed


def _device(device: devices.Device) -> dict[str, Any]:
    said = asdict(device)
    token = said.pop("token")
    return {**said, "token_hash": devices.token_hash(token)}


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
        if name != "app_id"
    }
