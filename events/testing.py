"""What the tests of a backend use to see what it publishes, without Pushfan and without a broker.

`CapturingPublisher` stands in for `Publisher`. Tests that let the real publisher write to a broker read the
events back with `drain` (`memory://`, or a real server) or `events_in_redis` (a Redis client, fakeredis too).
"""

from __future__ import annotations

import base64
import importlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

from .event import Event
from .names import QUEUE_INTAKE
from .publisher import Conflict, Connection, Publisher, PublishFailed, Queued, TakenIn, check_events
from .wire import canonical, decode, encode

Kind = TypeVar("Kind", bound=Event)

_NOWHERE: Final = "capturing://"


class CapturingPublisher(Publisher):
    """Check and record events as `Publisher` does, and send none.

    `events` are all events published, in order, also those published again and those of transactions, which
    the caller may have rolled back. Set `is_broker_down` to see what a backend does about `PublishFailed`.
    """

    def __init__(self, *, app: str | None = None) -> None:
        super().__init__(app=app)
        self.events: list[Event] = []
        self.is_broker_down = False
        self._taken_in: dict[tuple[str, str], tuple[int, bytes]] = {}

    def __repr__(self) -> str:
        return f"CapturingPublisher({len(self.events)} events)"

    def publish_many(self, events: Iterable[Event]) -> list[Queued]:
        """Record the events, or raise `PublishFailed` while `is_broker_down`."""
        checked = check_events(events, self._app)
        if self.is_broker_down:
            raise PublishFailed(_NOWHERE, "is_broker_down is set", is_uncertain=False)
        self.events += checked
        return [Queued(id=event.id) for event in checked]

    def publish_in_transaction(self, connection: Connection | None, event: Event) -> TakenIn:  # noqa: ARG002
        """Record the event and leave the connection alone; a known id with other content is a `Conflict`."""
        (checked,) = check_events([event], self._app)
        key, content = (checked.app, checked.id), canonical(checked)
        is_repeated = key in self._taken_in
        notification_id, first_content = self._taken_in.setdefault(key, (len(self._taken_in) + 1, content))
        if content != first_content:
            raise Conflict(checked.id)
        self.events.append(checked)
        return TakenIn(id=checked.id, notification_id=notification_id, is_repeated=is_repeated)

    def clear(self) -> None:
        """Forget the events recorded so far."""
        self.events.clear()

    def find(self, kind: type[Kind], **expected: object) -> list[Kind]:
        """Return the events of a kind with the fields expected: `find(TopicMessage, topic="news")`."""
        return [event for event in self.events if isinstance(event, kind) and _fits(event, expected)]

    def one(self, kind: type[Kind], **expected: object) -> Kind:
        """Return the only such event; an `AssertionError` shows what was published instead."""
        found = self.find(kind, **expected)
        if len(found) != 1:
            published = "\n".join(f"  {json.dumps(encode(event))}" for event in self.events) or "  nothing"
            raise AssertionError(
                f"expected one {kind.__name__} with {expected}, found {len(found)}; published:\n{published}"
            )
        return found[0]


def _fits(event: Event, expected: Mapping[str, object]) -> bool:
    return all(getattr(event, name) == _kept(value) for name, value in expected.items())


def _kept(value: object) -> object:
    """Turn a list of users into the form that events keep it in."""
    return tuple(sorted(set(value))) if isinstance(value, (list, set)) else value


def drain(url: str) -> list[Event]:
    """Take all events off the intake queue of a broker and return them, oldest first.

    For brokers that belong to the test: what is drained, no worker will see. `memory://` is one queue for
    the whole process; drain it before a test that expects it empty.
    """
    kombu = importlib.import_module("kombu")
    events: list[Event] = []
    with kombu.Connection(url) as connection:
        queue = kombu.Queue(QUEUE_INTAKE)(connection.channel())
        while (message := queue.get(no_ack=True, accept=["json"])) is not None:
            events += _events_of_task(message.payload)
    return events


def events_in_redis(client: Any) -> list[Event]:
    """Read the events on the intake queue through a Redis client, oldest first, and leave them there."""
    messages = [json.loads(raw) for raw in reversed(client.lrange(QUEUE_INTAKE, 0, -1))]
    bodies = [json.loads(base64.b64decode(message["body"])) for message in messages]
    return [event for body in bodies for event in _events_of_task(body)]


def _events_of_task(body: Any) -> list[Event]:
    _args, kwargs, _embedded = body
    return [decode(wire) for wire in kwargs["events"]]
