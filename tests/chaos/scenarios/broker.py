"""The broker forgets, is away, is full, or loses what it hands out: none of it may repeat or lose a push."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Final

import redis

from tests.chaos.findings import Findings
from tests.chaos.proxy import Proxy
from tests.chaos.scenario import Arena, Move, Scenario, every

# An outage lasts a third of the load, and long enough for time-outs and health checks to matter.
_SHORTEST_SECONDS: Final = 15.0
_PATIENCE_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.002
# Empties the broker if messages wait, and tells how many.
_FLUSH_MESSAGES: Final = """
local number = 0
for _, key in ipairs(redis.call('KEYS', 'pushfan.*')) do
    if redis.call('TYPE', key).ok == 'list' then number = number + redis.call('LLEN', key) end
end
if number > 0 then redis.call('FLUSHALL') end
return number
"""
_NO_MEMORY: Final = 1
_UNLIMITED: Final = 0


class BrokerScenario(Scenario):
    """Something happens to the broker."""

    may_repeat = False


class BrokerFlushed(BrokerScenario):
    """The broker is emptied in the middle of broadcasts, every few seconds."""

    name = "broker_flushed"
    loses_messages = True

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw the instants."""
        return [Move(at, "the broker is emptied", _flush) for at in every(chance, seconds, mean=2)]

    def check(self, arena: Arena, findings: Findings) -> Iterator[str]:
        """Messages must have been thrown away."""
        if not findings.faults.get("message flushed"):
            yield "the broker was empty whenever it was emptied"


def _flush(arena: Arena) -> None:
    """Wait a moment for messages: most of the time the queues are empty."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with _client(arena) as client:
        flush_messages = client.register_script(_FLUSH_MESSAGES)
        while not (number := int(flush_messages())) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        client.flushall()
    arena.fault("message flushed", number)
    arena.fault("broker flushed")


class BrokerRestarted(BrokerScenario):
    """The broker is killed and comes back without its data."""

    name = "broker_restarted"
    recovers = False

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw when, and how long it is away."""
        return [
            Move(at, "the broker comes back empty", partial(_restart, away_seconds=chance.uniform(0, 3)))
            for at in every(chance, seconds, mean=8, first=2)
        ]


def _restart(arena: Arena, away_seconds: float) -> None:
    stage = arena.stage
    stage.hold("valkey")
    stage.valkey.kill()
    arena.rest(away_seconds)
    stage.valkey.restart(wipe=True)
    stage.release("valkey")
    arena.fault("broker restarted empty")


class BrokerUnreachable(BrokerScenario):
    """Nobody gets a connection to the broker, for a third of the time."""

    name = "broker_unreachable"
    recovers = False

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw when."""
        at, until = outage(chance, seconds)
        return [
            Move(at, "the broker refuses connections", self.begin),
            Move(until, "the broker is back", lambda arena: _road(arena).heal()),
        ]

    def begin(self, arena: Arena) -> None:
        """Close the port."""
        arena.fault("broker connection cut", _road(arena).refuse())


class BrokerHalfOpen(BrokerUnreachable):
    """Packets to and from the broker vanish; when new connections pass, the old ones stay dead."""

    name = "broker_half_open"

    def begin(self, arena: Arena) -> None:
        """Let everything vanish."""
        arena.fault("broker connection half open", _road(arena).connections())
        _road(arena).black_hole()


class BrokerSlow(BrokerUnreachable):
    """Each packet to and from the broker takes its time: a message takes seconds, and others before it, too."""

    name = "broker_slow"

    def begin(self, arena: Arena) -> None:
        """Hold packets back."""
        _road(arena).delay(0.2)
        arena.fault("broker slow")


class BrokerConnectionsCut(BrokerScenario):
    """All connections to the broker are reset, every few seconds."""

    name = "broker_connections_cut"

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw the instants."""
        return [Move(at, "connections to the broker are cut", _cut) for at in every(chance, seconds, mean=3)]


def _cut(arena: Arena) -> None:
    arena.fault("broker connection cut", _road(arena).cut())


class BrokerFull(BrokerScenario):
    """The broker is out of memory: it hands messages out and takes none."""

    name = "broker_full"
    recovers = False

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw when."""
        at, until = outage(chance, seconds)
        return [
            Move(at, "the broker is out of memory", partial(_limit, number=_NO_MEMORY)),
            Move(until, "the broker has memory again", partial(_limit, number=_UNLIMITED)),
        ]

    def heal(self, arena: Arena) -> None:
        """Give the memory back."""
        _limit(arena, _UNLIMITED)

    def check(self, arena: Arena, findings: Findings) -> Iterator[str]:
        """Commands must have been refused, and no worker may have ended of it."""
        with _client(arena) as client:
            if not client.info("errorstats").get("errorstat_OOM"):
                yield "the broker refused nothing"
        if len(findings.scenarios) == 1 and findings.revived:
            yield f"{findings.revived} processes ended"


def _limit(arena: Arena, number: int) -> None:
    with _client(arena) as client:
        client.config_set("maxmemory", number)
    arena.fault("broker memory changed")


class BrokerPopsLost(BrokerScenario):
    """A part of what workers take off the queues is lost on its way to them."""

    name = "broker_pops_lost"
    loses_messages = True

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw how many."""
        share = chance.uniform(0.2, 0.6)
        return [
            Move(0.5, f"{share:.0%} of what is popped is lost", lambda arena: _road(arena).drop_pops(share))
        ]

    def heal(self, arena: Arena) -> None:
        """Count them."""
        arena.fault("pop lost", _road(arena).struck["pop"])

    def check(self, arena: Arena, findings: Findings) -> Iterator[str]:
        """Some must have been lost."""
        if not findings.faults.get("pop lost"):
            yield "no reply to a pop was lost"


def outage(chance: Random, seconds: float) -> tuple[float, float]:
    """Draw from when until when: at least 15 s if the load lasts that long."""
    at = chance.uniform(0.1, 0.25) * seconds
    return at, at + max(_SHORTEST_SECONDS, seconds / 3)


def _road(arena: Arena) -> Proxy:
    road = arena.stage.broker_road
    assert isinstance(road, Proxy)
    return road


def _client(arena: Arena) -> redis.Redis:
    return redis.Redis.from_url(arena.stage.valkey.url)
