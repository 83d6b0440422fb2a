"""Publishing the demo's events, by all the ways that Python has, and waiting until they have ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from events import DirectPush, Event, Message, Publisher
from gateway.interruption import Interruption
from registry import notifications
from registry.notifications import Notification

from .stage import Stage
from .world import Wave

_POLL_SECONDS: Final = 0.1
_RESTS: Final = 10
_STALLED_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """An event that was handed over: in which wave, to whom, and when by this machine's clock."""

    wave: Wave
    users: Sequence[str]
    at: float
    is_probe: bool = False


class Post:
    """Hands events over and follows them. `count` is told how many deliveries of a wave have ended."""

    def __init__(
        self, stage: Stage, broker_url: str, interruption: Interruption, count: Callable[[int], None]
    ) -> None:
        self.publications: dict[str, Publication] = {}
        self.found: dict[str, Notification] = {}
        self.open_seconds = 0.0
        self.has_stalled = False
        self._stage = stage
        self._publisher = Publisher(broker_url, app=stage.app)
        self._interruption = interruption
        self._count = count

    def close(self) -> None:
        """Close the connection to the broker."""
        self._publisher.close()

    def push(self, name: str, *users: str) -> DirectPush:
        """Make a direct push."""
        message = Message(title="For you", body="A direct push", data={"reason": name})
        return DirectPush(app=self._stage.app, id=name, users=users, message=message)

    def publish_many(self, wave: Wave, events: Sequence[tuple[Event, Sequence[str]]]) -> None:
        """Publish events, each with the users it is for, in few messages over the broker."""
        at = time.time()
        self._publisher.publish_many([event for event, _ in events])
        for event, users in events:
            self.publications[event.id] = Publication(wave=wave, users=users, at=at)

    def publish_in_transaction(self, wave: Wave, event: Event, users: Sequence[str]) -> None:
        """Publish as a backend that writes rows of its own: both or neither."""
        at = time.time()
        with self._stage.database.transaction() as connection:
            self._publisher.publish_in_transaction(connection, event)
        self.publications[event.id] = Publication(wave=wave, users=users, at=at)

    def probe(self, wave: Wave, users: Sequence[str], *, rest_seconds: float) -> None:
        """Publish a direct push to one user after the other, each in a call of its own, for its latency."""
        for number, user in enumerate(users):
            event = self.push(f"probe-{wave.value}-{number}", user)
            at = time.time()
            self._publisher.publish(event)
            self.publications[event.id] = Publication(wave=wave, users=[user], at=at, is_probe=True)
            self._interruption.sleep(rest_seconds)

    def await_planned(self, wave: Wave) -> None:
        """Wait until it is settled which deliveries a wave consists of."""
        self._await(wave, lambda one: one.planned_at is not None)

    def await_end(self, wave: Wave, began: float) -> None:
        """Wait until all of a wave has finished, or nothing moves any more: then the reckoning says what is lost."""
        self._await(wave, lambda one: one.finished_at is not None)
        found = [self.found[name] for name in self._names(wave) if name in self.found]
        ends = [self._stage.clock(one.finished_at) for one in found if one.finished_at is not None]
        self.open_seconds += max(max(ends, default=began) - began, 0.0)

    def has_ended(self, wave: Wave) -> bool:
        """Tell whether all of a wave has finished."""
        found = self._look(wave)
        return len(found) == len(self._names(wave)) and all(one.finished_at is not None for one in found)

    def _await(self, wave: Wave, is_reached: Callable[[Notification], bool]) -> None:
        state, moved_at = (-1, -1), time.monotonic()
        while True:
            looked_at = time.monotonic()
            found = self._look(wave)
            reached = sum(map(is_reached, found))
            ended = sum(sum(one.outcomes.values()) for one in found)
            self._count(ended)
            if reached == len(self._names(wave)):
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
        names = self._names(wave)
        newest = self._stage.database.run(
            lambda connection: notifications.list_page(connection, app=self._stage.app, limit=len(names))
        )
        found = [one for one in newest if one.key in names]
        self.found |= {one.key: one for one in found}
        return found

    def _names(self, wave: Wave) -> frozenset[str]:
        return frozenset(name for name, one in self.publications.items() if one.wave is wave)
