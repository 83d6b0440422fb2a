"""Webhooks: where an app is told of feedback and of finished notifications, and how far it was told.

Both are read as `feedback` is, by (transaction, id), and a webhook has one cursor in both. A **batch** is what lies
between the cursor and an end that is stored before the batch is told: repeated, it is the same entries under the same
id. Only who claimed a webhook last may move its cursor (the fence); so a batch is told at least once, and the batches
of one webhook in order.

The signing secret is not here: it is derived from the salt and a secret of the servers.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from .atomic import atomic
from .checks import APP_NAME, Problems, choice, refuse
from .database import Connection
from .errors import NotFound, RegistryError
from .feedback import Cursor
from .statements import load

_SQL = load("webhooks")
MOST: Final = 10
_SALT_BYTES: Final = 16
_NO_TIME: Final = timedelta(0)


class Topic(StrEnum):
    """What a webhook can be told of."""

    FEEDBACK = "feedback"
    FINISHED = "finished"


class State(StrEnum):
    """Whether a webhook is told. Its admin or too many failures disable it, its admin enables it again."""

    ACTIVE = "active"
    DISABLED = "disabled"


class TooManyWebhooks(RegistryError):
    """The app has as many webhooks as it may: remove one first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """One app's webhook. `salt` and `previous_salt` make its secrets; the URL may hold a secret of the receiver's."""

    id: int
    app_id: int
    app: str
    name: str
    url: str
    events: Sequence[Topic]
    salt: bytes
    previous_salt: bytes | None
    previous_until: datetime | None
    state: State
    state_reason: str | None
    state_changed_at: datetime
    told: Cursor
    failures: int
    failing_since: datetime | None
    last_error: str | None
    last_told_at: datetime | None
    due_at: datetime
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to tell a webhook until its time is over. `batch` is the end of a batch that was begun."""

    id: int
    fence: int
    app_id: int
    app: str
    name: str
    url: str
    events: Sequence[str]
    salt: bytes
    previous_salt: bytes | None
    told: Cursor
    batch: Cursor | None
    failures: int
    failing_since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing to tell: its place, what it is about, and the fields of its row."""

    cursor: Cursor
    topic: Topic
    row: Mapping[str, Any]


def put(
    connection: Connection,
    app_id: int,
    *,
    name: str,
    url: str,
    events: Collection[str] = tuple(Topic),
    state: State = State.ACTIVE,
    reason: str | None = None,
) -> tuple[Webhook, bool]:
    """Make a webhook, or change and enable one; gives it and whether it is new. The URL is checked elsewhere.

    Raises `InvalidRegistration` and `TooManyWebhooks`.
    """
    _check(name, events)
    with atomic(connection):
        parameters = {"app_id": app_id, "name": name, "url": url, "state": state.value, "reason": reason}
        connection.execute(_SQL["serialize"], parameters)
        row = connection.execute(
            _SQL["put"],
            {
                **parameters,
                "events": [topic.value for topic in Topic if topic in events],
                "salt": secrets.token_bytes(_SALT_BYTES),
            },
        ).fetchone()
        assert row is not None
        counted = connection.execute(_SQL["count"], parameters).fetchone()
        assert counted is not None
        if row["is_new"] and counted["webhooks"] > MOST:
            raise TooManyWebhooks(f"an app has {MOST} webhooks at most: remove one first")
        return get(connection, app_id, name), row["is_new"]


def rotate(connection: Connection, app_id: int, name: str, *, grace: timedelta) -> Webhook:
    """Give a webhook another secret; the one before signs beside it for `grace`. Raises `NotFound`."""
    parameters = {
        "app_id": app_id,
        "name": name,
        "grace": grace,
        "salt": secrets.token_bytes(_SALT_BYTES),
    }
    with atomic(connection):
        if connection.execute(_SQL["rotate"], parameters).fetchone() is None:
            raise _unknown(name)
        return get(connection, app_id, name)


def remove(connection: Connection, app_id: int, name: str) -> None:
    """Remove a webhook; what it was not told it never is. Raises `NotFound`."""
    if connection.execute(_SQL["remove"], {"app_id": app_id, "name": name}).fetchone() is None:
        raise _unknown(name)


def get(connection: Connection, app_id: int, name: str) -> Webhook:
    """Find a webhook by its name. Raises `NotFound`."""
    row = connection.execute(_SQL["list_all"], {"app_id": app_id, "name": name}).fetchone()
    if row is None:
        raise _unknown(name)
    return _webhook(row)


def list_all(connection: Connection, app_id: int | None = None) -> list[Webhook]:
    """List webhooks by app and name, of one app or all."""
    return [_webhook(row) for row in connection.execute(_SQL["list_all"], {"app_id": app_id, "name": None})]


def claim(connection: Connection, *, limit: int, lease: timedelta) -> list[Claim]:
    """Take the right to tell webhooks that have something to tell, for `lease`."""
    claims = []
    for row in connection.execute(_SQL["claim"], {"limit": limit, "lease": lease}):
        told = Cursor(xid=row.pop("told_xid"), id=row.pop("told_id"))
        xid, id_ = row.pop("batch_xid"), row.pop("batch_id")
        claims.append(Claim(told=told, batch=None if xid is None else Cursor(xid=xid, id=id_), **row))
    return claims


def begin(connection: Connection, claim: Claim, *, limit: int) -> tuple[list[Entry], Cursor] | None:
    """Read the batch that a claim is about, and store its end before it is told for the first time.

    Gives its entries, in order, and its end. `None` if there is nothing to tell, or the claim is no longer good: it is
    over then.
    """
    entries = _entries(connection, claim, limit=limit)
    end = claim.batch or (entries[-1].cursor if entries else None)
    parameters: dict[str, Any] = {"webhook_id": claim.id, "fence": claim.fence}
    if end is None:
        connection.execute(_SQL["release"], parameters)
        return None
    parameters |= {"xid": end.xid, "id": end.id}
    if connection.execute(_SQL["begin"], parameters).fetchone() is None:
        return None
    return entries, end


def confirm(connection: Connection, claim: Claim, end: Cursor, *, lease: timedelta = _NO_TIME) -> bool:
    """Move the cursor to the end of a batch that the receiver has; with `lease` the claim goes on.

    `False` if another has claimed meanwhile.
    """
    parameters = {
        "webhook_id": claim.id,
        "fence": claim.fence,
        "xid": end.xid,
        "id": end.id,
        "lease": lease,
    }
    return connection.execute(_SQL["confirm"], parameters).fetchone() is not None


def fail(
    connection: Connection,
    claim: Claim,
    *,
    error: str,
    delay: timedelta,
    patience: timedelta,
    reason: str,
    is_gone: bool = False,
) -> State | None:
    """Come again after `delay`, or disable for `reason`: at once if `is_gone`, else after `patience` of failing.

    Gives the state after it, `None` if another has claimed meanwhile.
    """
    row = connection.execute(
        _SQL["fail"],
        {
            "webhook_id": claim.id,
            "fence": claim.fence,
            "error": error,
            "delay": delay,
            "patience": patience,
            "reason": reason,
            "is_gone": is_gone,
        },
    ).fetchone()
    return None if row is None else State(row["state"])


def forget_finishes(connection: Connection, *, days: int, limit: int) -> None:
    """Forget finished notifications that no webhook was told of for so long."""
    connection.execute(_SQL["forget_finishes"], {"days": days, "limit": limit})


def _entries(connection: Connection, claim: Claim, *, limit: int) -> list[Entry]:
    last = claim.batch
    parameters = {
        "app_id": claim.app_id,
        "xid": claim.told.xid,
        "id": claim.told.id,
        "last_xid": None if last is None else last.xid,
        "last_id": None if last is None else last.id,
        "limit": limit,
    }
    entries = [
        Entry(cursor=Cursor(xid=row.pop("xid"), id=row.pop("id")), topic=topic, row=row)
        for topic, statement in ((Topic.FEEDBACK, "feedback_entries"), (Topic.FINISHED, "finish_entries"))
        if topic in claim.events
        for row in connection.execute(_SQL[statement], parameters)
    ]
    return sorted(entries, key=lambda entry: entry.cursor)[:limit]


def _check(name: str, events: Collection[str]) -> None:
    problems = Problems()
    APP_NAME(name, "name", problems)
    if not events:
        problems.add("events", "empty", f"must not be empty: some of {', '.join(Topic)}")
    for index, value in enumerate(events):
        choice(Topic)(value, f"events.{index}", problems)
    refuse(problems)


def _unknown(name: str) -> NotFound:
    return NotFound(f"there is no webhook {name!r}")


def _webhook(row: Mapping[str, Any]) -> Webhook:
    values = dict(row)
    told = Cursor(xid=values.pop("told_xid"), id=values.pop("told_id"))
    values["events"] = [Topic(topic) for topic in values["events"]]
    return Webhook(told=told, **{**values, "state": State(values["state"])})
