"""PostgreSQL restarts, crashes, is slow, is cut off, or is full.

While no worker can reach it, what was answered cannot be recorded; when it is back, another worker may be first. What
is issued and unrecorded then is read from the rows at a moment when nobody can change them, and bounds what may come
twice.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from random import Random
from typing import ClassVar, Final

import psycopg

from tests.chaos.findings import Findings
from tests.chaos.proxy import Proxy
from tests.chaos.scenario import Arena, Move, Scenario, every

_SHORTEST_SECONDS: Final = 15.0
# What was on its way to the server when the way was cut is done.
_SETTLE_SECONDS: Final = 0.2
_END_SECONDS: Final = 20.0
_OTHERS = """
SELECT count(pg_terminate_backend(pid)) AS ended FROM pg_stat_activity
WHERE backend_type = 'client backend' AND application_name LIKE 'pushfan %'
"""


class DatabaseRestarted(Scenario):
    """PostgreSQL is restarted: sessions are ended, and for a moment there is nothing to connect to."""

    name = "database_restarted"
    recovers = False
    number: ClassVar[signal.Signals] = signal.SIGINT

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw when, and how long it is away."""
        return [
            Move(at, "PostgreSQL is back", partial(self.down, away_seconds=chance.uniform(0, 5)))
            for at in every(chance, seconds, mean=12, first=2)
        ]

    def down(self, arena: Arena, away_seconds: float) -> None:
        """End it, look at what it holds while nobody else can, and let it go on."""
        stage = arena.stage
        stage.hold("postgres")
        self.end(arena)
        _road(arena).refuse()
        arena.rest(away_seconds)
        stage.postgres.restart()
        arena.killer.note_outage(self.name)
        _road(arena).heal()
        stage.release("postgres")
        arena.fault(f"{self.name}")

    def end(self, arena: Arena) -> None:
        """Shut it down fast."""
        server = arena.stage.postgres
        os.kill(server.pid, signal.SIGINT)
        deadline = time.monotonic() + _END_SECONDS
        while server.is_running() and time.monotonic() < deadline:
            time.sleep(0.01)


class DatabaseKilled(DatabaseRestarted):
    """PostgreSQL crashes and recovers from its log."""

    name = "database_killed"

    def end(self, arena: Arena) -> None:
        """Kill it."""
        arena.stage.postgres.kill()


class DatabaseUnreachable(Scenario):
    """Nobody gets a connection to PostgreSQL, for a third of the time."""

    name = "database_unreachable"
    recovers = False

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw when."""
        at = chance.uniform(0.1, 0.25) * seconds
        return [
            Move(at, "PostgreSQL is away", self.begin),
            Move(
                at + max(_SHORTEST_SECONDS, seconds / 3),
                "PostgreSQL is back",
                lambda arena: _road(arena).heal(),
            ),
        ]

    def begin(self, arena: Arena) -> None:
        """Close the port."""
        arena.fault("database connection cut", _road(arena).refuse())
        self.note(arena)

    def note(self, arena: Arena) -> None:
        """Read what is held when what was on its way has arrived."""
        time.sleep(_SETTLE_SECONDS)
        arena.killer.note_outage(self.name)


class DatabaseHalfOpen(DatabaseUnreachable):
    """Packets to and from PostgreSQL vanish; when new connections pass, the old ones stay dead."""

    name = "database_half_open"

    def begin(self, arena: Arena) -> None:
        """Let everything vanish."""
        arena.fault("database connection half open", _road(arena).connections())
        _road(arena).black_hole()
        self.note(arena)


class DatabaseFull(DatabaseUnreachable):
    """PostgreSQL has no connection left for workers."""

    name = "database_full"

    def __init__(self) -> None:
        self._others = ExitStack()

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw when, and how long."""
        at = chance.uniform(0.1, 0.4) * seconds
        return [
            Move(at, "PostgreSQL has no connection left", self.begin),
            Move(at + chance.uniform(5, 10), "PostgreSQL has connections again", self.heal),
        ]

    def begin(self, arena: Arena) -> None:
        """Take all connections, those of the workers, too."""
        url = arena.stage.postgres.url
        (row,) = arena.stage.run(_OTHERS)
        arena.fault("database connection ended", row["ended"])
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                self._others.enter_context(contextlib.closing(psycopg.connect(url, autocommit=True)))
        _road(arena).cut()
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                self._others.enter_context(contextlib.closing(psycopg.connect(url, autocommit=True)))
        self.note(arena)

    def heal(self, arena: Arena) -> None:
        """Let go of them."""
        self._others.close()


class DatabaseSlow(Scenario):
    """Each packet to and from PostgreSQL takes its time, for a third of the load."""

    name = "database_slow"
    recovers = False

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw how slow."""
        at, delay = chance.uniform(0.1, 0.25) * seconds, chance.uniform(0.05, 0.25)
        return [
            Move(at, f"PostgreSQL answers {2 * delay:.1f} s later", lambda arena: _road(arena).delay(delay)),
            Move(at + seconds / 3, "PostgreSQL is as fast as before", lambda arena: _road(arena).heal()),
        ]


class DatabaseConnectionsEnded(Scenario):
    """All sessions of PostgreSQL are ended at once, every few seconds."""

    name = "database_connections_ended"
    may_repeat = False

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw the instants."""
        return [Move(at, "sessions of PostgreSQL are ended", _end) for at in every(chance, seconds, mean=2)]


def _end(arena: Arena) -> None:
    (row,) = arena.stage.run(_OTHERS)
    arena.fault("database connection ended", row["ended"])


class CommitsCut(Scenario):
    """A part of the connections to PostgreSQL is cut inside COMMIT: it was done, and nobody was told."""

    name = "commits_cut"
    may_repeat = False

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw how many."""
        share = chance.uniform(0.05, 0.3)
        return [Move(0.5, f"{share:.0%} of COMMITs are cut", lambda arena: _road(arena).cut_commits(share))]

    def heal(self, arena: Arena) -> None:
        """Count them."""
        arena.fault("commit cut", _road(arena).struck["commit"])

    def check(self, arena: Arena, findings: Findings) -> Iterator[str]:
        """Some must have been cut."""
        if not findings.faults.get("commit cut"):
            yield "no COMMIT was cut"


def _road(arena: Arena) -> Proxy:
    road = arena.stage.database_road
    assert isinstance(road, Proxy)
    return road
