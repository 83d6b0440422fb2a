"""Pseudo users: ids for installs without a login, and their promotion to the users that they turn out to be.

A pseudo user is a user with an id that nobody else has, `pseudo:` and 32 random digits: it has devices,
subscriptions, memberships and pushes like any other, and nothing is stored to make one. Promotion moves all of that in
one transaction:

1. Registrations for the pseudo user wait (an advisory lock of its own), and are refused once it is promoted: an app
   that starts with its old token does not take the phone back.
2. Planners of the app wait between two pages. A fan-out that has planned some users and not yet all would reach the
   moved device twice, or not at all, as the two ids lie around its cursor: while there is one, the promotion is busy.
3. Device rows change their user and stay what they are, so that whatever is planned for them is delivered, once. It is
   the only exception from the rule that a device never changes its user: the person is the same.
4. Events that were taken in for the pseudo user and are not planned yet are readdressed.

What is published to the pseudo user's id afterwards reaches nobody: from then on a backend addresses the user.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from psycopg.errors import UniqueViolation

from .atomic import atomic
from .checks import USER, Problems, refuse
from .database import Connection
from .errors import AlreadyPromoted, Busy
from .statements import load

_SQL = load("pseudo")
PREFIX: Final = "pseudo:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """What a promotion moved: devices in use, subscriptions and memberships that the user had not, own targets."""

    devices: int
    subscriptions: int
    groups: int
    targets: int


def new_id() -> str:
    """Make an id for an install without login. It is not secret, but cannot be guessed."""
    return PREFIX + secrets.token_hex(16)


def is_pseudo(user_id: str) -> bool:
    """Tell whether a user's id is one of these."""
    return user_id.startswith(PREFIX)


def hold(
    connection: Connection,
    users: Iterable[str],
    *,
    app_id: int | None = None,
    channel_ids: Collection[int] = (),
) -> None:
    """Keep pseudo users among these from being promoted until the transaction ends. Costs others nothing.

    Give the app or channels of it. Raises `AlreadyPromoted`.
    """
    pseudo = sorted({user for user in users if is_pseudo(user)})
    if not pseudo:
        return
    connection.execute(_SQL["hold"], {"users": pseudo})
    # A second statement: it sees what was committed while the first one waited.
    parameters = {"users": pseudo, "app_id": app_id, "channel_ids": list(channel_ids)}
    row = connection.execute(_SQL["promoted"], parameters).fetchone()
    if row is not None:
        raise AlreadyPromoted(f"{row['pseudo_id']} has logged in: it is registered under its user's own id")


def promote(connection: Connection, app_id: int, pseudo_id: str, user_id: str) -> Promotion:
    """Make a pseudo user the user that it is. Again with the same user changes nothing.

    Raises `InvalidRegistration`, `AlreadyPromoted` (to another user), and `Busy` while a large fan-out to the pseudo
    user is being planned: try again after a second.
    """
    _check(pseudo_id, user_id)
    given = {"app_id": app_id, "pseudo": pseudo_id, "user": user_id}
    with atomic(connection):
        connection.execute(_SQL["lock"], given)
        found = connection.execute(_SQL["find"], given).fetchone()
        if found is not None and found["user_id"] != user_id:
            raise AlreadyPromoted(f"{pseudo_id} is another user by now")
        connection.execute(_SQL["stop_planners"], given)
        if connection.execute(_SQL["half_planned"], given).fetchone() is not None:
            raise Busy(f"a fan-out to {pseudo_id} is being planned: try again in a moment")
        try:
            done = _move(connection, given)
        except UniqueViolation as error:
            raise Busy(f"{user_id} gets a target of the same name in this moment: try again") from error
        connection.execute(_SQL["record"], given)
        return done


def list_by_user(connection: Connection, app_id: int, user_id: str) -> list[str]:
    """List the pseudo users that a user was before."""
    rows = connection.execute(_SQL["list_by_user"], {"app_id": app_id, "user": user_id})
    return [row["pseudo_id"] for row in rows]


def forget(connection: Connection, app_id: int, user_id: str) -> None:
    """Forget who was promoted to a user, or what a pseudo user was promoted to."""
    connection.execute(_SQL["forget"], {"app_id": app_id, "user": user_id})


def _move(connection: Connection, given: dict[str, object]) -> Promotion:
    # In the order of locks: devices come before notifications.
    used = sum(row["is_used"] for row in connection.execute(_SQL["move_devices"], given))
    subscriptions = connection.execute(_SQL["copy_subscriptions"], given).rowcount
    connection.execute(_SQL["drop_subscriptions"], given)
    groups = connection.execute(_SQL["copy_memberships"], given).rowcount
    connection.execute(_SQL["drop_memberships"], given)
    targets = connection.execute(_SQL["move_targets"], given).rowcount
    connection.execute(_SQL["move_feedback"], given)
    connection.execute(_SQL["readdress"], given)
    return Promotion(devices=used, subscriptions=subscriptions, groups=groups, targets=targets)


def _check(pseudo_id: str, user_id: str) -> None:
    problems = Problems()
    USER(pseudo_id, "pseudo", problems)
    USER(user_id, "user", problems)
    if not is_pseudo(pseudo_id):
        problems.add("pseudo", "format", f"must be a pseudo user, {PREFIX}…")
    if is_pseudo(user_id):
        problems.add("user", "format", "must not be a pseudo user")
    refuse(problems)
