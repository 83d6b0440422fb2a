"""Empty the broker while it is in use: FLUSHALL, on a server of ours, and watch everything move again.

Its messages are hints. What they announced is announced again; events that were not taken in are published again
with the same id, as every producer does that must be sure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from events.names import QUEUE_FEEDBACK, QUEUE_INTAKE, QUEUE_PLAN, Lane, deliver_queue
from registry import overview
from registry.database import Database

from .post import Post
from .traffic import Traffic
from .world import Wave

_QUEUES: Final = (QUEUE_INTAKE, QUEUE_PLAN, QUEUE_FEEDBACK, *map(deliver_queue, Lane))
# Where kombu keeps what workers have taken and not acknowledged.
_UNACKNOWLEDGED: Final = "unacked"
_UNDER_WAY_SECONDS: Final = 30.0
# The moment to strike is when messages are waiting; if none ever do, any moment will do.
_ANNOUNCED: Final = 2
_ANNOUNCED_SECONDS: Final = 5.0
_MOVING_SECONDS: Final = 60.0
# How long a producer waits for the row of an event before it publishes the event again.
_REPEAT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Emptying:
    """What was in the broker, what of it mattered, and after how long all of that moved; `None`: not in time.

    `announced`: chunks whose message nobody had answered yet. `repeated`: events that were published again.
    """

    messages: int
    announced: int
    repeated: int
    seconds: float | None

    @property
    def faults(self) -> Iterator[str]:
        """Say what it broke."""
        if self.seconds is None:
            yield f"the broker was emptied, and {_MOVING_SECONDS:.0f} s later not everything moved again"

    def as_json(self) -> dict[str, int | float | None]:
        """Say it to a program."""
        return {
            "messages": self.messages,
            "announced": self.announced,
            "published_again": self.repeated,
            "moving_after_seconds": None if self.seconds is None else round(self.seconds, 2),
        }

    def __str__(self) -> str:
        lost = (
            f"emptied the broker: {self.messages:,} messages gone; {self.announced:,} chunks were announced and not "
            f"begun, {self.repeated:,} events were published again"
        )
        if self.seconds is None:
            return f"{lost}; not everything moved within {_MOVING_SECONDS:.0f} s"
        return f"{lost}; everything moved again after {self.seconds:.2f} s"


class Emptier:
    """Empties one broker, once. `burst` publishes events at the last moment."""

    def __init__(
        self, database: Database, broker_url: str, post: Post, wave: Wave, *, burst: Callable[[], None]
    ) -> None:
        self._database = database
        self._broker_url = broker_url
        self._post = post
        self._wave = wave
        self._burst = burst
        self._repeated: set[str] = set()
        self._repeat_at = 0.0

    def empty(self, traffic: Traffic) -> Emptying:
        """Wait for a broadcast to be under way, empty the broker, and wait for everything to move again."""
        traffic.until(lambda: bool(self._database.run(overview.leases)), seconds=_UNDER_WAY_SECONDS)
        self._burst()
        traffic.until(lambda: len(self._announced()) >= _ANNOUNCED, seconds=_ANNOUNCED_SECONDS)
        messages = _flush(self._broker_url)
        emptied_at = time.monotonic()
        self._repeat_at = emptied_at + _REPEAT_SECONDS
        before, names = self._announced(), self._post.names(self._wave)
        moved = traffic.until(lambda: self._is_moving(before, names), seconds=_MOVING_SECONDS)
        return Emptying(
            messages=messages,
            announced=len(before),
            repeated=len(self._repeated),
            seconds=None if moved is None else time.monotonic() - emptied_at,
        )

    def _is_moving(self, before: frozenset[tuple[int, int]], names: frozenset[str]) -> bool:
        """Tell whether each chunk that was announced has been begun, and each event taken in."""
        missing = self._post.missing(self._wave) & names
        if missing and time.monotonic() >= self._repeat_at:
            self._post.repeat(missing)
            self._repeated |= missing
            self._repeat_at = time.monotonic() + _REPEAT_SECONDS
        return not missing and not before & self._announced()

    def _announced(self) -> frozenset[tuple[int, int]]:
        return frozenset(self._database.run(overview.announced))


def _flush(url: str) -> int:
    """Remove everything, and return how many messages that were; both at one moment."""
    import redis

    with redis.Redis.from_url(url) as server, server.pipeline(transaction=True) as pipeline:
        for queue in _QUEUES:
            pipeline.llen(queue)
        pipeline.hlen(_UNACKNOWLEDGED)
        pipeline.flushall()
        *counts, _ = pipeline.execute()
    found: list[Any] = counts
    return sum(map(int, found))
