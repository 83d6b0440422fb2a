"""Workers, planners and dispatchers die, or sleep too long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from random import Random
from typing import Any, ClassVar, Final

from registry.channels import Provider
from tests.chaos.failpoints import Point
from tests.chaos.findings import Findings
from tests.chaos.scenario import Arena, Move, Scenario, every

_WORKERS: Final = ("urgent", "first", "second")


class Calm(Scenario):
    """Nothing goes wrong: not a single push may be repeated."""

    name = "calm"
    may_repeat = False
    combines = False

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Do nothing."""
        return []


class KillSender(Scenario):
    """A worker process with pushes on their way is killed, every few seconds."""

    name = "kill_sender"
    must_kill = True

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw the instants."""
        return [Move(at, "a sender is killed", _kill_sender) for at in every(chance, seconds, mean=2.5)]


def _kill_sender(arena: Arena, **how: Any) -> None:
    if arena.killer.kill_sender(**how):
        arena.fault("sender killed")


class KillAtPoints(Scenario):
    """A worker process dies at each named point of a chunk's way, in turn and again."""

    name = "kill_at_points"
    must_kill = True
    points: ClassVar[tuple[Point, ...]] = (
        Point.CLAIMED, Point.ISSUED, Point.SENDING, Point.ANSWERED, Point.RECORDED
    )  # fmt: skip

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw an order for each round, so that all points are met before any is met twice."""
        moves: list[Move] = []
        order: list[Point] = []
        mean = min(2.0, seconds / (1.5 * len(self.points)))
        for at in every(chance, seconds, mean=mean):
            order = order or chance.sample(self.points, k=len(self.points))
            point = order.pop()
            moves.append(Move(at, f"whoever comes by {point} dies", partial(_arm, point=point)))
        return moves

    def check(self, arena: Arena, findings: Findings) -> Iterator[str]:
        """Each point must have been met."""
        for point in self.points:
            if not arena.killer.count(point):
                yield f"nobody died at {point}"


def _arm(arena: Arena, point: Point) -> None:
    arena.killer.arm(point)
    arena.fault(f"armed {point}")


class KillPlanner(KillAtPoints):
    """Whoever takes events in or plans a page dies around its commit."""

    name = "kill_planner"
    must_kill = False
    points = (Point.TAKEN_IN, Point.PLANNING, Point.PLANNED)
    # Pages small enough for several.
    settings: ClassVar[Mapping[str, object]] = {"page_size": 200}


class KillTree(Scenario):
    """A whole worker is killed, with its children and its dispatcher."""

    name = "kill_tree"
    must_kill = True

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw who, and when."""
        moves = []
        for at in every(chance, seconds, mean=4, first=1.5):
            name = chance.choice(_WORKERS[1:])
            moves.append(Move(at, f"the worker {name} is killed", partial(_kill_tree, name=name)))
        return moves


def _kill_tree(arena: Arena, name: str) -> None:
    """Kill one when the others are up: without any worker nobody could take over."""
    while not all(arena.stage.is_up(other) for other in _WORKERS):
        if arena.is_over():
            return
        arena.rest(0.2)
    arena.killer.kill_tree(name)
    arena.fault("worker killed")


class KillDispatcher(Scenario):
    """The dispatchers are killed, one after the other."""

    name = "kill_dispatcher"
    may_repeat = False

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw who, and when."""
        moves = []
        for at in every(chance, seconds, mean=1):
            name = chance.choice(_WORKERS)
            moves.append(
                Move(
                    at,
                    f"the dispatcher of {name} dies",
                    partial(_kill_dispatcher, name=name),
                )
            )
        return moves


def _kill_dispatcher(arena: Arena, name: str) -> None:
    if arena.killer.kill_dispatcher(name):
        arena.fault("dispatcher killed")


class Zombie(Scenario):
    """A worker process with pushes on their way sleeps past its lease, and goes on as if nothing had been."""

    name = "zombie"

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw how long, and when."""
        return [
            Move(
                at,
                "a sender slept past its lease",
                partial(_freeze, seconds=chance.uniform(11, 14)),
            )
            for at in every(chance, seconds, mean=15, first=1)
        ]

    def check(self, arena: Arena, findings: Findings) -> Iterator[str]:
        """Somebody must have slept."""
        if not findings.freezes:
            yield "nobody slept"


def _freeze(arena: Arena, seconds: float) -> None:
    if arena.killer.freeze_sender(seconds, arena.is_over):
        arena.fault("sender frozen")


class ZombieAtClaim(Scenario):
    """A worker process sleeps past its lease with a chunk that it has just claimed: it may send nothing of it."""

    name = "zombie_at_claim"
    may_repeat = False
    # Slow chunks of other channels have the few processes that are awake.
    recovers = False

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw when, and how long after the takeover it wakes: while the next owner waits for slow answers."""
        return [
            Move(0, "providers take their time", partial(slow_down, milliseconds=1000)),
            *(
                Move(at, "a sender overslept", partial(_oversleep, late_seconds=chance.uniform(0.1, 0.5)))
                for at in every(chance, seconds, mean=4, first=1)
            ),
        ]

    def check(self, arena: Arena, findings: Findings) -> Iterator[str]:
        """Somebody must have slept until another had its chunk."""
        if not findings.faults.get("sender overslept"):
            yield "nobody overslept"


def _oversleep(arena: Arena, late_seconds: float) -> None:
    # JPush's requests are stored before they are sent, by which a sleeper would notice anyway.
    known = [
        channel.id
        for some in arena.stage.channels.values()
        for provider, channel in some.items()
        if provider is not Provider.JPUSH
    ]
    sleeper = arena.killer.lull(known)
    if sleeper is not None and arena.killer.oversleep(sleeper, late_seconds):
        arena.fault("sender overslept")


class KillWaiting(KillSender):
    """A worker process that waits for slow answers is killed, every few seconds: all that it sent was received."""

    name = "kill_waiting"
    settings: ClassVar[Mapping[str, object]] = {"chunk_size": 800}

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw how slow, and the instants. Of every other chunk something was recorded before."""
        milliseconds = round(chance.uniform(800, 1200))
        moves = [Move(0, "providers take their time", partial(slow_down, milliseconds=milliseconds))]
        for place, at in enumerate(every(chance, seconds, mean=2)):
            act = partial(_kill_sender, waits_seconds=0.2, is_begun=place % 2 == 1)
            moves.append(Move(at, "a sender that waited is killed", act))
        return moves


def slow_down(arena: Arena, milliseconds: int) -> None:
    """Let every provider take so long for each answer; what it accepts, it accepts at once."""
    for some in arena.stage.simulators.values():
        for simulator in some.values():
            simulator.control("POST", "/latency", {"ms": milliseconds})


class RollingRestart(Scenario):
    """Workers are stopped as a deployment does, one after the other: not a single push may be repeated."""

    name = "rolling_restart"
    may_repeat = False

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw the order. Every other time each process of the worker is told, as some supervisors do."""
        moves = [Move(0, "providers take their time", partial(slow_down, milliseconds=400))]
        for place, at in enumerate(every(chance, seconds, mean=3, first=1)):
            name, is_group = _WORKERS[place % len(_WORKERS)], place % 2 == 1
            act = partial(_restart, name=name, is_group=is_group)
            moves.append(Move(at, f"{name} is restarted{' as a group' if is_group else ''}", act))
        return moves

    def check(self, arena: Arena, findings: Findings) -> Iterator[str]:
        """Each worker must have ended by itself."""
        if findings.faults.get("stop ignored"):
            yield f"{findings.faults['stop ignored']} workers did not stop in time"


def _restart(arena: Arena, name: str, *, is_group: bool) -> None:
    arena.fault("worker restarted")
    if not arena.stage.restart_gracefully(name, is_group=is_group):
        arena.fault("stop ignored")
