"""Notifications: taking events in, planning their fan-out, cancelling, and telling what became of them.

1. `take_in` stores each event once for its (app, id).
2. `plan_new` resolves recipients to devices and freezes them into chunks: small notifications all at once, everything
   else by pages of users, the first page at once.
3. `due_plans` names the notifications whose further pages wait.
4. A notification is finished when its last page is planned and each of its deliveries has a final outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import orjson

from .database import Connection
from .errors import NotFound
from .ledger import FinalOutcome
from .statements import load

_SQL = load("notifications")
_NEWEST = 2**63 - 1


class Intake(StrEnum):
    """What became of an event at the door."""

    TAKEN_IN = "taken_in"
    REPEATED = "repeated"
    CONFLICT = "conflict"
    UNKNOWN_APP = "unknown_app"


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenIn:
    """The answer to one event; `notification_id` is `None` only for an unknown app."""

    event_id: str
    notification_id: int | None
    status: Intake


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What one step of planning did."""

    users: int
    devices: int
    is_planned: bool
    channel_ids: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstPages:
    """What intake planned: the channels that have new chunks, and the notifications with further pages."""

    channel_ids: frozenset[int]
    unplanned: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """Something that will not move by itself: `kind` is undecodable, invalid, conflict or poison."""

    kind: str
    error: str
    app: str | None = None
    body: str | None = None
    notification_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """A notification as operators see it. Counters of running chunks are added when a chunk is done."""

    id: int
    app: str
    key: str
    kind: str
    lane: str
    event: Mapping[str, Any] | None
    created_at: datetime
    expires_at: datetime
    planned_at: datetime | None
    cancelled_at: datetime | None
    finished_at: datetime | None
    warning: str | None
    users: int
    devices: int
    retries: int
    unsure: int
    outcomes: Mapping[FinalOutcome, int]

    @property
    def state(self) -> str:
        """`planning`, `sending`, `cancelling`, `cancelled` or `finished`."""
        if self.finished_at is not None:
            return "finished" if self.cancelled_at is None else "cancelled"
        if self.cancelled_at is not None:
            return "cancelling"
        return "planning" if self.planned_at is None else "sending"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where the deliveries are. The three add up to what was planned."""

    open: int
    waiting: int
    final: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What happened to one delivery. `state` is a final outcome, or `planned`, `sending`, `waiting`."""

    device_id: int
    user_id: str | None
    device_key: str | None
    channel: str | None
    provider: str | None
    device_state: str | None
    state: str
    attempts: int
    reason: str | None
    provider_id: str | None
    at: datetime
    earlier: Sequence[Mapping[str, Any]] | None


def wait_briefly(connection: Connection) -> None:
    """Wait for other transactions for a moment only, in this one: then `LockNotAvailable` is raised."""
    connection.execute(_SQL["wait_briefly"])


def take_in(connection: Connection, events: Sequence[Mapping[str, Any]]) -> list[TakenIn]:
    """Store events in wire form, already validated. One answer for each, in their order."""
    rows = connection.execute(_SQL["take_in"], {"events": orjson.dumps(list(events)).decode()})
    return [TakenIn(**{**row, "status": Intake(row["status"])}) for row in rows]


def plan_new(
    connection: Connection, notification_ids: Sequence[int], *, chunk_size: int, page_size: int
) -> FirstPages:
    """Plan notifications just taken in: small ones wholly and together, others their first page."""
    row = connection.execute(
        _SQL["plan_small"], {"ids": list(notification_ids), "chunk_size": chunk_size, "page_size": page_size}
    ).fetchone()
    assert row is not None
    channels, unplanned = set(row["channel_ids"]), []
    for notification_id in sorted(set(notification_ids).difference(row["planned"])):
        page = plan_page(connection, notification_id, chunk_size=chunk_size, page_size=page_size)
        if page is not None:
            channels |= page.channel_ids
            unplanned += [] if page.is_planned else [notification_id]
    return FirstPages(channel_ids=frozenset(channels), unplanned=unplanned)


def plan_page(
    connection: Connection, notification_id: int, *, chunk_size: int, page_size: int
) -> Page | None:
    """Plan the next page of users; `None` when there is nothing left to plan. Call it in a transaction."""
    connection.execute(_SQL["hold_promotions"], {"id": notification_id})
    row = connection.execute(
        _SQL["plan_page"], {"id": notification_id, "chunk_size": chunk_size, "page_size": page_size}
    ).fetchone()
    return None if row is None else Page(**{**row, "channel_ids": frozenset(row["channel_ids"])})


def plan_device(connection: Connection, notification_id: int, device_id: int) -> bool:
    """Plan a notification just taken in for one device, and nobody else. `False` if the device is not in use."""
    row = connection.execute(_SQL["plan_device"], {"id": notification_id, "device_id": device_id}).fetchone()
    return row is not None and row["channel_id"] is not None


def due_plans(connection: Connection, *, limit: int = 100) -> list[tuple[int, str]]:
    """Pick notifications to plan further, as (id, lane). They are picked again after 5 s without progress."""
    return [(row["id"], row["lane"]) for row in connection.execute(_SQL["due_plans"], {"limit": limit})]


def cancel(connection: Connection, notification_id: int) -> bool:
    """Raise the flag. `False` if the notification is finished or cancelled already. Then `hurry`, when committed."""
    return connection.execute(_SQL["cancel"], {"id": notification_id}).fetchone() is not None


def hurry(connection: Connection, notification_id: int) -> None:
    """After `cancel` is committed: let the deliveries that wait end now.

    Chunks that are leased are left to their owners, who see the flag.
    """
    connection.execute(_SQL["hurry_retries"], {"id": notification_id})
    connection.execute(_SQL["hurry_chunks"], {"id": notification_id})


def find(connection: Connection, name: str, *, app: str | None = None) -> Notification:
    """Find a notification by its id or by its event's id. Raises `NotFound`."""
    row = None
    if name.isdecimal() and len(name) < 20 and int(name) <= _NEWEST:
        row = connection.execute(_SQL["find"], {"id": int(name), "app": app}).fetchone()
    if row is None:
        row = connection.execute(_SQL["find_by_key"], {"key": name, "app": app}).fetchone()
    if row is None:
        raise NotFound(f"no notification or event has the id {name!r}")
    return _notification(row)


def list_page(
    connection: Connection,
    *,
    app: str | None = None,
    before: int | None = None,
    unfinished: bool = False,
    limit: int = 20,
) -> list[Notification]:
    """List notifications, the newest first, older than `before`."""
    rows = connection.execute(
        _SQL["list_page"], {"app": app, "before": before or _NEWEST, "unfinished": unfinished, "limit": limit}
    )
    return [_notification(row) for row in rows]


def progress(connection: Connection, notification_id: int) -> Progress:
    """Count where a notification's deliveries are now."""
    row = connection.execute(_SQL["progress"], {"id": notification_id}).fetchone()
    assert row is not None
    return Progress(**row)


def conservation(connection: Connection) -> dict[str, int]:
    """Count planned, open, waiting and final over everything: planned = open + waiting + final."""
    row = connection.execute(_SQL["conservation"]).fetchone()
    assert row is not None
    return dict(row)


def trace(
    connection: Connection,
    notification_id: int,
    *,
    user: str | None = None,
    after: int = 0,
    limit: int = 1000,
) -> list[Trace]:
    """Tell what happened to each delivery of a notification, or to those of one user."""
    parameters = {"id": notification_id, "user": user, "after": after, "limit": limit}
    rows = connection.execute(_SQL["trace_final"], parameters).fetchall()
    if len(rows) < limit:
        rows += connection.execute(_SQL["trace_waiting"], parameters).fetchall()
        rows += connection.execute(_SQL["trace_open"], parameters).fetchall()
    return [Trace(**row) for row in rows[:limit]]


def deliveries(
    connection: Connection,
    notification_id: int,
    *,
    user: str | None = None,
    state: str | None = None,
    after: int = 0,
    limit: int = 1000,
) -> list[Trace]:
    """Give a page of a notification's deliveries by device id, `after` the last of the page before.

    All places are read at one moment: a delivery that moves meanwhile is in one of them.
    """
    parameters = {"id": notification_id, "user": user, "state": state, "after": after, "limit": limit}
    return [Trace(**row) for row in connection.execute(_SQL["deliveries"], parameters)]


def preview(connection: Connection, event: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Count the devices an event in wire form would reach now, by channel and locale."""
    kind = event["kind"]
    parameters = {
        "app": event["app"],
        "users": event.get("users", []),
        "kind": kind,
        "scope": event.get("scope", "app"),
        "name": event.get(kind),
        "actor": event.get("actor"),
        "environment": event.get("environment"),
    }
    return connection.execute(_SQL["preview"], parameters).fetchall()


def providers_in_use(connection: Connection, app: str) -> frozenset[str]:
    """Name the providers that an app has channels for."""
    rows = connection.execute(_SQL["providers_in_use"], {"app": app})
    return frozenset(row["provider"] for row in rows)


def store_dead_letter(connection: Connection, letter: DeadLetter) -> int:
    """Keep what will not move by itself, for a person to look at. Returns its id."""
    row = connection.execute(
        _SQL["store_dead_letter"],
        {
            "app": _storable(letter.app),
            "kind": letter.kind,
            "error": _storable(letter.error),
            "body": _storable(letter.body),
            "notification_id": letter.notification_id,
        },
    ).fetchone()
    assert row is not None
    return int(row["id"])


def heartbeat(
    connection: Connection, *, name: str, lanes: Sequence[str], processes: int, version: str
) -> None:
    """Say that a worker runs."""
    connection.execute(
        _SQL["heartbeat"], {"name": name, "lanes": list(lanes), "processes": processes, "version": version}
    )


def take_leave(connection: Connection, name: str) -> None:
    """Say that a worker was stopped."""
    connection.execute(_SQL["take_leave"], {"name": name})


def keep_house(
    connection: Connection, *, content_age: timedelta, key_age: timedelta, days: int, limit: int = 1000
) -> None:
    """Clear contents and keys that are old enough, make the next days' partitions, forget silent workers.

    Notifications and deliveries go after `days`, deliveries a whole day at a time.
    """
    connection.execute(_SQL["clear_contents"], {"age": content_age, "limit": limit})
    connection.execute(_SQL["forget_keys"], {"age": key_age, "limit": limit})
    connection.execute(_SQL["forget_workers"])
    connection.execute(_SQL["make_partitions"])
    connection.execute(_SQL["forget_notifications"], {"days": days, "limit": limit})
    connection.execute(_SQL["drop_partitions"], {"days": days})


def _storable(text: str | None) -> str | None:
    """Show what PostgreSQL cannot hold, NUL and lone surrogates, as what it can: a letter is never refused."""
    return text and text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _notification(row: Mapping[str, Any]) -> Notification:
    shared = {name: row[name] for name in Notification.__slots__ if name != "outcomes"}
    return Notification(**shared, outcomes={outcome: row[outcome.value] for outcome in FinalOutcome})
