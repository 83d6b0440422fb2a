"""RabbitMQ forgets, crashes, is away or blocks publishers: the broker's scenarios, where it is installed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Final

from tests.chaos.findings import Findings
from tests.chaos.rabbit import RabbitServer
from tests.chaos.scenario import Arena, Move, Scenario, every

from .broker import BrokerHalfOpen, BrokerUnreachable, outage

_PURGE_SECONDS: Final = 1.5
_POLL_SECONDS: Final = 0.02


class RabbitUnreachable(BrokerUnreachable):
    """Nobody gets a connection to RabbitMQ, for a third of the time."""

    name = "rabbit_unreachable"
    needs_rabbit = True
    combines = False


class RabbitHalfOpen(BrokerHalfOpen):
    """Packets to and from RabbitMQ vanish; when new connections pass, the old ones stay dead."""

    name = "rabbit_half_open"
    needs_rabbit = True
    combines = False


class RabbitPurged(Scenario):
    """RabbitMQ's queues are emptied in the middle of broadcasts, every few seconds."""

    name = "rabbit_purged"
    may_repeat = False
    needs_rabbit = True
    combines = False

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw the instants."""
        return [Move(at, "queues are emptied", _purge) for at in every(chance, seconds, mean=2)]

    def check(self, arena: Arena, findings: Findings) -> Iterator[str]:
        """Messages must have been thrown away."""
        if not findings.faults.get("message purged"):
            yield "the queues were empty whenever they were emptied"


def _purge(arena: Arena) -> None:
    """Empty the queues; workers are fast, so until something was there, for a moment at most."""
    end = time.monotonic() + _PURGE_SECONDS
    while not (purged := _rabbit(arena).purge()) and time.monotonic() < end and not arena.is_over():
        arena.rest(_POLL_SECONDS)
    arena.fault("message purged", purged)


class RabbitKilled(Scenario):
    """The node is killed and comes back."""

    name = "rabbit_killed"
    may_repeat = False
    recovers = False
    needs_rabbit = True
    combines = False
    forgets = False

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw when, and how long it is away."""
        return [
            Move(at, "the node is back", partial(self.down, away_seconds=chance.uniform(0, 5)))
            for at in every(chance, seconds, mean=20, first=3)
        ]

    def down(self, arena: Arena, away_seconds: float) -> None:
        """Kill it and start it again."""
        arena.stage.hold("rabbit")
        _rabbit(arena).kill()
        arena.rest(away_seconds)
        _rabbit(arena).restart(wipe=self.forgets)
        arena.stage.release("rabbit")
        arena.fault("node killed")


class RabbitRestarted(RabbitKilled):
    """The node is killed and comes back without its data, queues included."""

    name = "rabbit_restarted"
    forgets = True


class RabbitFull(Scenario):
    """RabbitMQ's memory alarm blocks everybody who publishes."""

    name = "rabbit_full"
    may_repeat = False
    recovers = False
    needs_rabbit = True
    combines = False

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw when."""
        at, until = outage(chance, seconds)
        return [
            Move(at, "the memory alarm is on", partial(_limit, has_memory=False)),
            Move(until, "the memory alarm is off", partial(_limit, has_memory=True)),
        ]

    def heal(self, arena: Arena) -> None:
        """End the alarm."""
        _limit(arena, has_memory=True)

    def check(self, arena: Arena, findings: Findings) -> Iterator[str]:
        """No worker may have ended of it."""
        if findings.revived:
            yield f"{findings.revived} processes ended"


def _limit(arena: Arena, *, has_memory: bool) -> None:
    _rabbit(arena).limit_memory(has_memory=has_memory)
    arena.fault("memory alarm changed")


def _rabbit(arena: Arena) -> RabbitServer:
    assert arena.stage.rabbit is not None
    return arena.stage.rabbit
