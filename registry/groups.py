"""Groups: users who share buckets and topics, those of the scope `group:<id>`.

Membership gives rights (`rules`), it subscribes nobody: a member who wants what a group's topic says subscribes.
Leaving ends the user's subscriptions to what belongs to the group, so that nobody goes on listening from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from . import subscriptions
from .atomic import atomic
from .checks import USER, Problems, refuse
from .database import Connection, Database
from .errors import NotFound
from .statements import load

_SQL = load("groups")
_ROWS_AT_ONCE: Final = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group, and how many members it has now."""

    id: str
    created_at: datetime
    members: int


def put(connection: Connection, app_id: int, group_id: str) -> bool:
    """Make a group. `False` if it was there already. Raises `InvalidRegistration`."""
    _check(group_id)
    return connection.execute(_SQL["put"], {"app_id": app_id, "group_id": group_id}).rowcount == 1


def get(connection: Connection, app_id: int, group_id: str) -> Group:
    """Find a group. Raises `NotFound`."""
    row = connection.execute(_SQL["get"], {"app_id": app_id, "group_id": group_id}).fetchone()
    if row is None:
        raise NotFound(f"there is no group {group_id!r}")
    return Group(**row)


def list_all(connection: Connection, app_id: int, *, after: str = "", limit: int = 100) -> list[Group]:
    """List groups by id, `after` the last of the page before."""
    parameters = {"app_id": app_id, "after": after, "limit": limit}
    return [Group(**row) for row in connection.execute(_SQL["list_all"], parameters)]


def add_members(connection: Connection, app_id: int, group_id: str, users: Iterable[str]) -> int:
    """Add users to a group, which begins with its first member. Returns how many are new.

    Raises `InvalidRegistration`.
    """
    users = sorted(set(users))
    _check(group_id, users)
    parameters = {"app_id": app_id, "group_id": group_id}
    with atomic(connection):
        connection.execute(_SQL["put"], parameters)
        return connection.execute(_SQL["add_members"], {**parameters, "users": users}).rowcount


def remove_member(connection: Connection, app_id: int, group_id: str, user_id: str) -> bool:
    """End a membership, and the user's subscriptions to the group's targets. `False` if there was none."""
    parameters = {"app_id": app_id, "group_id": group_id, "user_id": user_id}
    with atomic(connection):
        if connection.execute(_SQL["remove_member"], parameters).rowcount == 0:
            return False
        # A second statement: it sees what a member subscribed to while the first one waited.
        connection.execute(_SQL["end_subscriptions"], parameters)
        return True


def is_member(connection: Connection, app_id: int, group_id: str, user_id: str) -> bool:
    """Tell whether a user is a member, who then stays one until the transaction ends."""
    parameters = {"app_id": app_id, "group_id": group_id, "user_id": user_id}
    return connection.execute(_SQL["hold_membership"], parameters).fetchone() is not None


def list_members(
    connection: Connection, app_id: int, group_id: str, *, after: str = "", limit: int = 1000
) -> list[str]:
    """List a group's members in order, `after` the last of the page before."""
    parameters = {"app_id": app_id, "group_id": group_id, "after": after, "limit": limit}
    return [row["user_id"] for row in connection.execute(_SQL["list_members"], parameters)]


def list_by_user(
    connection: Connection, app_id: int, user_id: str, *, after: str = "", limit: int = 1000
) -> list[str]:
    """List the groups that a user belongs to, in order."""
    parameters = {"app_id": app_id, "user_id": user_id, "after": after, "limit": limit}
    return [row["group_id"] for row in connection.execute(_SQL["list_by_user"], parameters)]


def remove(database: Database, app_id: int, group_id: str) -> bool:
    """Remove a group with its members, targets and their subscriptions. `False` if there was none.

    In transactions of bounded size: run it again if it was interrupted.
    """
    parameters = {"app_id": app_id, "group_id": group_id, "limit": _ROWS_AT_ONCE}
    while database.run(partial(_delete, "drop_members", parameters)):
        pass
    subscriptions.remove_scope(database, app_id, f"group:{group_id}")
    return database.run(partial(_delete, "drop", parameters)) == 1


def _delete(statement: str, parameters: Mapping[str, Any], connection: Connection) -> int:
    return connection.execute(_SQL[statement], parameters).rowcount


def _check(group_id: str, users: Iterable[str] = ()) -> None:
    problems = Problems()
    USER(group_id, "group", problems)
    for user_id in users:
        USER(user_id, "user", problems)
    refuse(problems)
