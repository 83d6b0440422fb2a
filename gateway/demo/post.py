"""Publishing the demo's events, by all the ways that Python has, and waiting until they have ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from events import BucketWrite, Change, DirectPush, Event, Message, Publisher, TopicMessage
from gateway.interruption import Interruption
from registry import notifications
from registry.notifications import Notification

from .stage import Stage
from .world import TOPIC, Wave

_POLL_SECONDS: Final = 0.1
_RESTS: Final = 10
_STALLED_SECONDS: Final = 60.0
_USERS_AT_ONCE: Final = 20

# An event, and the users whom it is for.
Addressed = tuple[Event, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """An event that was handed over: in which wave, to whom, and when by this machine's clock."""

    wave: Wave
    event: Event
    users: Sequence[str]
    at: float
    is_probe: bool = False


class Post:
    """Hands events over and follows them."""

    def __init__(self, stage: Stage, broker_url: str, interruption: Interruption) -> None:
        self.publications: dict[str, Publication] = {}
        self.found: dict[str, Notification] = {}
        self.open_seconds = 0.0
        self.has_stalled = False
        self._stage = stage
        self._publisher = Publisher(broker_url, app=stage.app)
        self._interruption = interruption

    def close(self) -> None:
        """Close the connection to the broker."""
        self._publisher.close()

    def to_all(self, name: str) -> Addressed:
        """Make a topic message to everybody."""
        message = Message(title="News", body="Something for everybody", data={"edition": name})
        event = TopicMessage(app=self._stage.app, id=name, topic=TOPIC, message=message)
        return event, self._stage.world.users

    def to_several(
        self, name: str, users: Sequence[str], *, at_once: int = _USERS_AT_ONCE
    ) -> list[Addressed]:
        """Make direct pushes to some users each."""
        groups = [users[start : start + at_once] for start in range(0, len(users), at_once)]
        return [(self.push(f"{name}-{number}", *group), group) for number, group in enumerate(groups)]

    def push(self, name: str, *users: str) -> DirectPush:
        """Make a direct push."""
        message = Message(title="For you", body="A direct push", data={"reason": name})
        return DirectPush(app=self._stage.app, id=name, users=users, message=message)

    def writes(self, name: str) -> list[Addressed]:
        """Make a write to each bucket."""
        return [
            (
                BucketWrite(
                    app=self._stage.app,
                    id=f"{name}-{bucket}",
                    bucket=bucket,
                    object="o1",
                    change=Change.UPDATED,
                ),
                users,
            )
            for bucket, users in self._stage.world.buckets.items()
        ]

    def publish_many(self, wave: Wave, events: Sequence[Addressed]) -> None:
        """Publish events, each with the users it is for, in few messages over the broker."""
        at = time.time()
        self._publisher.publish_many([event for event, _ in events])
        for event, users in events:
            self.publications[event.id] = Publication(wave=wave, event=event, users=users, at=at)

    def publish_in_transaction(self, wave: Wave, addressed: Addressed) -> None:
        """Publish as a backend that writes rows of its own: both or neither."""
        event, users = addressed
        at = time.time()
        with self._stage.database.transaction() as connection:
            self._publisher.publish_in_transaction(connection, event)
        self.publications[event.id] = Publication(wave=wave, event=event, users=users, at=at)

    def probe(self, wave: Wave, user: str) -> None:
        """Publish a direct push to one user, in a call of its own, for its latency."""
        event = self.push(f"probe-{len(self.publications)}", user)
        at = time.time()
        self._publisher.publish(event)
        self.publications[event.id] = Publication(wave=wave, event=event, users=[user], at=at, is_probe=True)

    def repeat(self, names: Collection[str]) -> None:
        """Publish events again, with the ids that they had: who was taken in is not taken in twice."""
        self._publisher.publish_many([self.publications[name].event for name in names])

    def missing(self, wave: Wave) -> frozenset[str]:
        """Name the events of a wave that were not taken in so far."""
        self._look(wave)
        return self.names(wave).difference(self.found)

    def is_planned(self, name: str) -> bool:
        """Tell whether it is settled which deliveries an event consists of."""
        self._look(self.publications[name].wave)
        return name in self.found and self.found[name].planned_at is not None

    @property
    def probe_latencies_ms(self) -> list[float]:
        """How long the direct pushes took that were seen to have finished: from the call to the last acceptance."""
        return [
            (self._stage.clock(finished) - one.at) * 1000
            for name, one in list(self.publications.items())
            if one.is_probe and (finished := self._finished_at(name)) is not None
        ]

    def await_planned(self, wave: Wave) -> None:
        """Wait until it is settled which deliveries a wave consists of."""
        self._await(wave, lambda one: one.planned_at is not None)

    def await_end(self, wave: Wave, began: float) -> None:
        """Wait until all of a wave has finished, or nothing moves any more: then the reckoning says what is lost."""
        self._await(wave, lambda one: one.finished_at is not None)
        found = [self.found[name] for name in self.names(wave) if name in self.found]
        ends = [self._stage.clock(one.finished_at) for one in found if one.finished_at is not None]
        self.open_seconds += max(max(ends, default=began) - began, 0.0)

    def has_ended(self, wave: Wave) -> bool:
        """Tell whether all of a wave has finished."""
        found = self._look(wave)
        return len(found) == len(self.names(wave)) and all(one.finished_at is not None for one in found)

    def _await(self, wave: Wave, is_reached: Callable[[Notification], bool]) -> None:
        state, moved_at = (-1, -1), time.monotonic()
        while True:
            looked_at = time.monotonic()
            found = self._look(wave)
            reached = sum(map(is_reached, found))
            ended = sum(sum(one.outcomes.values()) for one in found)
            if reached == len(self.names(wave)):
                return
            if (reached, ended) != state:
                state, moved_at = (reached, ended), time.monotonic()
            elif time.monotonic() - moved_at > _STALLED_SECONDS:
                self.has_stalled = True
                return
            # Looking must not take what the workers need.
            self._interruption.sleep(max(_POLL_SECONDS, _RESTS * (time.monotonic() - looked_at)))

    def _look(self, wave: Wave) -> list[Notification]:
        """Read the notifications of a wave; nothing has been published after it."""
        names = self.names(wave)
        newest = self._stage.database.run(
            lambda connection: notifications.list_page(connection, app=self._stage.app, limit=len(names))
        )
        found = [one for one in newest if one.key in names]
        self.found |= {one.key: one for one in found}
        return found

    def _finished_at(self, name: str) -> datetime | None:
        return self.found[name].finished_at if name in self.found else None

    def names(self, wave: Wave) -> frozenset[str]:
        """Name the events of a wave."""
        return frozenset(name for name, one in self.publications.items() if one.wave is wave)
