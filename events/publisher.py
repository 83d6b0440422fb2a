"""Hand events to Pushfan: over the broker, or inside one's own PostgreSQL transaction.

PublishError
├── PublishFailed    the broker did not confirm; publish again with the same id
├── Conflict         the id was used before, with other content
├── UnknownApp       nobody has added this app to Pushfan
├── NotInstalled     the database has neither Pushfan's schema nor its outbox
└── Refused          over HTTP (`http_publisher`): the key may not do that, or some events are at fault
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Final, Protocol, Self
from weakref import WeakKeyDictionary

from .broker import Broker, BrokerFailed, Task
from .event import BucketWrite, DirectPush, Event, TopicMessage
from .validation import Problems
from .wire import encode

_EVENTS_IN_A_MESSAGE: Final = 100
# Bounds a message when events carry long lists of users; one event alone may be larger.
_BYTES_IN_A_MESSAGE: Final = 256 * 1024
_IDS_IN_A_SUMMARY: Final = 3
_TASK_IDS: Final = uuid.UUID("4d0c1a52-2f2b-5f0e-9a43-0d2f5d0f7a11")
_TAKE_IN: Final = "SELECT event_id, notification_id, status FROM pushfan.take_in(%s::jsonb)"
_PUT: Final = "INSERT INTO pushfan.outbox (event) VALUES (%s::jsonb)"
# Asked of the catalog, which everybody may read: a call that fails would spoil the caller's transaction. A role that
# may not take in, in Pushfan's own database, can be one that may only write to the outbox.
_FIND_DOORS: Final = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
               WHERE n.nspname = 'pushfan' AND p.proname = 'take_in') AS has_intake,
       EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
               WHERE n.nspname = 'pushfan' AND p.proname = 'take_in'
                 AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')) AS may_take_in,
       EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'pushfan' AND c.relname = 'outbox') AS has_outbox
"""


class PublishError(Exception):
    """An event was not published."""


class PublishFailed(PublishError):
    """The broker did not confirm. Publish the same events again: an id that arrived before changes nothing.

    `is_uncertain`: some of the events may have arrived. `broker` is its URL without user and password.
    """

    # Pickle makes it of its words and adds the rest: a Celery task of a backend's may raise it.
    def __init__(self, broker: str, reason: str, *, is_uncertain: bool = True) -> None:
        super().__init__(broker, reason)
        self.broker = broker
        self.reason = reason
        self.is_uncertain = is_uncertain

    def __str__(self) -> str:
        what = (
            "it may have taken some of the events" if self.is_uncertain else "it has taken none of the events"
        )
        who = self.broker if self.broker.startswith("http") else f"the broker {self.broker}"
        return (
            f"{who} did not confirm, {what}; publishing them again with the same ids is safe ({self.reason})"
        )


class Conflict(PublishError):
    """The event's id was taken in before with other content: the first content stays. Use a new id."""

    def __init__(self, event_id: str) -> None:
        super().__init__(event_id)
        self.event_id = event_id

    def __str__(self) -> str:
        return f"the id {self.event_id} was taken in before with other content"


class UnknownApp(PublishError):
    """Pushfan does not know the app: an operator adds it with `pushfan app add`."""

    def __init__(self, app: str) -> None:
        super().__init__(app)
        self.app = app

    def __str__(self) -> str:
        return f"Pushfan knows no app {self.app}; an operator adds it with: pushfan app add {self.app}"


class NotInstalled(PublishError):
    """The connection's database has neither Pushfan's schema nor its outbox; the transaction is still usable."""

    def __str__(self) -> str:
        return (
            "this database has neither Pushfan's schema nor its outbox; "
            "who owns it installs the outbox with: pushfan outbox install --url postgresql://..."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """The broker has the event. It is taken in when a worker has read it; a broker may lose it before."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenIn:
    """The event is a row in the caller's transaction: nothing is lost once that commits.

    `is_repeated`: the same event was taken in before, and this call changed nothing.
    """

    id: str
    notification_id: int
    is_repeated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InOutbox:
    """The event is a row of the outbox in the caller's transaction: nothing is lost once that commits.

    It is taken in when a relay has moved it: only then has it a notification, and is an id seen to be repeated.
    """

    id: str

    notification_id: ClassVar[None] = None
    is_repeated: ClassVar[bool] = False


class _Door(Enum):
    """Where `publish_in_transaction` writes to."""

    INTAKE = "intake"
    OUTBOX = "outbox"


class Connection(Protocol):
    """A DB-API connection of psycopg 3 or psycopg2."""

    def cursor(self) -> Any:
        """Open a cursor."""


class Publisher:
    """Publish events of one app. Make one and keep it: it is safe for threads and for forks.

    `url` names the broker: redis://, rediss://, redis+socket://, amqp://, amqps:// or memory://; without one
    only `publish_in_transaction` works. `app`, if given, is the only app whose events are published.
    `ca_file` replaces the system's certificate authorities for rediss:// and amqps://.
    Nothing is opened before the first event. Needs `pushfan-events[redis]` or `[amqp]`.
    """

    def __init__(self, url: str | None = None, *, app: str | None = None, ca_file: str | None = None) -> None:
        self._broker = None if url is None else Broker(url, ca_file=ca_file)
        self._app = app
        self._doors: WeakKeyDictionary[Connection, _Door] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"Publisher({self._broker.name if self._broker else None!r}, app={self._app!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def publish(self, event: Event) -> Queued:
        """Send one event to the broker. Raises `PublishFailed` within 10 seconds if that does not confirm."""
        return self.publish_many([event])[0]

    def publish_many(self, events: Iterable[Event]) -> list[Queued]:
        """Send events in few messages, in order. All are checked before any is sent.

        Raises `PublishFailed` if the broker fails on the way: some may have arrived, repeat them all.
        """
        checked = check_events(events, self._app)
        if self._broker is None:
            raise ValueError("this publisher has no broker: give it a URL, or use publish_in_transaction")
        try:
            self._broker.send([_task(group) for group in _groups(checked)])
        except BrokerFailed as error:
            raise PublishFailed(self._broker.name, error.reason, is_uncertain=error.is_uncertain) from error
        return [Queued(id=event.id) for event in checked]

    def publish_in_transaction(self, connection: Connection, event: Event) -> TakenIn | InOutbox:
        """Publish the event as part of the transaction that is open on the caller's connection, who commits.

        In Pushfan's own database it is taken in, at once; in any other that has the outbox it is put there, and a
        relay takes it in after the commit. The role needs EXECUTE on `pushfan.take_in`, or INSERT on `pushfan.outbox`.
        Raises `Conflict`, `UnknownApp` (these two only in Pushfan's own database) and `NotInstalled`, which leave the
        transaction usable. One statement, and another to find the way the first time on a connection.
        """
        (checked,) = check_events([event], self._app)
        with connection.cursor() as cursor:
            if self._door_of(connection, cursor) is _Door.OUTBOX:
                cursor.execute(_PUT, (json.dumps(encode(checked)),))
                return InOutbox(id=checked.id)
            cursor.execute(_TAKE_IN, (json.dumps([encode(checked)]),))
            _, notification_id, status = _first_row(cursor, "event_id", "notification_id", "status")
        if status == "conflict":
            raise Conflict(checked.id)
        if status == "unknown_app":
            raise UnknownApp(checked.app)
        return TakenIn(id=checked.id, notification_id=notification_id, is_repeated=status == "repeated")

    def _door_of(self, connection: Connection, cursor: Any) -> _Door:
        """Find out where a connection's events go, once, if the connection can be remembered."""
        try:
            known = self._doors.get(connection)
        except TypeError:  # a pool's proxy that takes no weak references
            return _find_door(cursor)
        if known is None:
            known = self._doors[connection] = _find_door(cursor)
        return known

    def close(self) -> None:
        """Close the connections to the broker. The publisher can still be used."""
        if self._broker is not None:
            self._broker.close()


def check_events(events: Iterable[Event], app: str | None) -> list[Event]:
    """Refuse what is not an event, and events of another app than the publisher's."""
    checked = list(events)
    problems = Problems()
    for index, event in enumerate(checked):
        if not isinstance(event, (BucketWrite, TopicMessage, DirectPush)):
            raise TypeError(f"only events can be published, not a {type(event).__name__}")
        if app is not None and event.app != app:
            problems.add(f"{index}.app", "conflict", f"must be {app}, the publisher's app, not {event.app}")
    problems.raise_if_any()
    return checked


def _groups(events: Sequence[Event]) -> Iterator[list[dict[str, Any]]]:
    """Cut the events into runs that fit in a message."""
    group: list[dict[str, Any]] = []
    size = 0
    for wire in map(encode, events):
        weight = len(json.dumps(wire))
        if group and (len(group) == _EVENTS_IN_A_MESSAGE or size + weight > _BYTES_IN_A_MESSAGE):
            yield group
            group, size = [], 0
        group.append(wire)
        size += weight
    if group:
        yield group


def _task(group: Sequence[Mapping[str, Any]]) -> Task:
    return Task(id=_task_id(group), kwargs={"events": group}, summary=_summary(group))


def _task_id(group: Sequence[Mapping[str, Any]]) -> str:
    """Derive the task's id from its events, so that a repeated message is recognised as such."""
    return str(uuid.uuid5(_TASK_IDS, json.dumps([[wire["app"], wire["id"]] for wire in group])))


def _summary(group: Sequence[Mapping[str, Any]]) -> str:
    """Say what a message carries in words that are fit for Flower and logs: how many, whose, which ids."""
    count = f"{len(group)} event{'s' if len(group) > 1 else ''}"
    ids = ", ".join(str(wire["id"]) for wire in group[:_IDS_IN_A_SUMMARY])
    more = ", …" if len(group) > _IDS_IN_A_SUMMARY else ""
    apps = ", ".join(sorted({str(wire["app"]) for wire in group}))
    return f"{count}, app {apps}: {ids}{more}"


def _find_door(cursor: Any) -> _Door:
    cursor.execute(_FIND_DOORS)
    has_intake, may_take_in, has_outbox = _first_row(cursor, "has_intake", "may_take_in", "has_outbox")
    if not (has_intake or has_outbox):
        raise NotInstalled
    return _Door.INTAKE if may_take_in or not has_outbox else _Door.OUTBOX


def _first_row(cursor: Any, *names: str) -> tuple[Any, ...]:
    """Read the row whichever way the caller's connection makes rows: tuples or dictionaries."""
    row = cursor.fetchone()
    return tuple(row[name] for name in names) if isinstance(row, Mapping) else tuple(row)
