"""What a scenario is: moves of the adversary, drawn from a seed before anything runs.

To write one, subclass `Scenario` in a module of `tests/chaos/scenarios/` and add it to `ALL` of that package:

    class BrokerUnreachable(Scenario):
        "Clients get no connection to the broker for a third of the time."

        name = "broker_unreachable"

        def moves(self, chance: Random, seconds: float) -> list[Move]:
            at = chance.uniform(0.1, 0.4) * seconds
            return [
                Move(at, "broker refuses", lambda arena: arena.stage.broker_road.refuse()),
                Move(at + seconds / 3, "broker is back", lambda arena: arena.stage.broker_road.heal()),
            ]

1. `moves` is called once, before the load begins, with a random source of this scenario's own. It must draw everything
   it will ever need there: the same seed gives the same moves, whatever the machine does meanwhile. `at` counts seconds
   from the start of the load. A move itself must not draw.
2. Each scenario has a thread; its moves run one after the other, each not before its time. A move that raises fails the
   run. A move that takes long delays only its own scenario's next ones. Long ones ask `arena.is_over()`.
3. After the load has ended, `heal` is called once: it undoes whatever is still wrong. The runner then heals both roads,
   starts what is down, clears the simulators' rules and latencies, and waits for quiet.
4. `check` is called after the reckoning and yields a sentence for each promise of this scenario's own that was broken:
   usually that what it wanted to provoke did happen. In company others may keep it from that, so that only those
   are asked that say `checks_in_company`.

What a scenario may touch (`Arena`):

- `stage`: `postgres`, `valkey` (`gateway.local` servers: `kill`, `stop`, `restart`), `database_road`, `broker_road`
  (`Road`: whatever `Stage` was given to open them with, `tests.chaos.proxy.Proxy` normally),
  `simulators[app][provider]`, `workers`; `hold(name)` keeps `"postgres"`, `"valkey"` or a worker down until
  `release(name)`; `database` is a way to PostgreSQL past the road, for looking.
  With `needs_rabbit` there is `rabbit`, too (`hold("rabbit")`), and `broker_road` leads there.
- `killer`: kills so that kills are counted and their duplicates bounded. Never signal a worker process in another way:
  what it had issued and not recorded must be read between SIGSTOP and SIGKILL.
- `load`: publishes more (`publish`), with the recipients noted for the reckoning.
- `fault(name)` counts what was done; `tell(text)` writes a line of progress.

Declarations (class attributes) say what the runner must prepare or may forgive; see `Scenario`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, ClassVar, Protocol

from registry.ledger import FinalOutcome

if TYPE_CHECKING:
    from .findings import Findings
    from .killer import Killer
    from .load import Load
    from .stage import Stage
    from .world import World


class Road(Protocol):
    """A way to a server that can be disturbed. `url` is where clients connect."""

    @property
    def url(self) -> str:
        """Where clients connect."""

    def heal(self) -> None:
        """Let everything pass again."""

    def close(self) -> None:
        """End; connections are cut."""


@dataclass(slots=True, kw_only=True)
class Arena:
    """Everything that moves act on. Shared by the scenarios' threads."""

    stage: Stage
    world: World
    killer: Killer
    load: Load
    tell: Callable[[str], None]
    over: threading.Event = field(default_factory=threading.Event)
    faults: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def is_over(self) -> bool:
        """Tell whether the load has ended: long moves end, too."""
        return self.over.is_set()

    def rest(self, seconds: float) -> None:
        """Wait, but not beyond the end of the load."""
        self.over.wait(seconds)

    def fault(self, name: str, number: int = 1) -> None:
        """Count what was done to the system."""
        with self._lock:
            self.faults[name] += number


@dataclass(frozen=True, slots=True)
class Move:
    """One decision of the adversary: what it does, and when, in seconds from the start of the load."""

    at: float
    name: str
    act: Callable[[Arena], object]


class Scenario:
    """One kind of trouble. The docstring's first line is what `--list` shows."""

    name: ClassVar[str]
    # Settings of workers that it needs; those of several scenarios are merged.
    settings: ClassVar[Mapping[str, object]] = {}
    # Its faults are HTTP/2 frames: all simulators run with the slower engine that can do them.
    needs_frames: ClassVar[bool] = False
    # The broker is RabbitMQ; without it installed the scenario is skipped.
    needs_rabbit: ClassVar[bool] = False
    # A run with it must have killed a process that had pushes on their way.
    must_kill: ClassVar[bool] = False
    # False: with nothing but such scenarios in a run, not a single push may be repeated.
    may_repeat: ClassVar[bool] = True
    # False: work cannot go on within lease + 2 s after a kill, since what it needs is away.
    recovers: ClassVar[bool] = True
    # Announcements are lost again and again: whoever needs several is not judged by how long that took.
    loses_messages: ClassVar[bool] = False
    # How deliveries to good phones may also end, beside being accepted, or withdrawn when the phone left.
    also: ClassVar[frozenset[FinalOutcome]] = frozenset()
    # Nothing is published but direct pushes to one user each.
    only_direct: ClassVar[bool] = False
    # False: it is left out of random combinations, and runs alone.
    combines: ClassVar[bool] = True
    # Nothing that others do can keep it from what it checks.
    checks_in_company: ClassVar[bool] = False

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw what will be done, and when."""
        raise NotImplementedError

    def heal(self, arena: Arena) -> None:
        """Undo what is still wrong when the load has ended."""

    def check(self, arena: Arena, findings: Findings) -> Iterator[str]:
        """Yield what this scenario promised and did not come true."""
        yield from ()

    @classmethod
    def summary(cls) -> str:
        """Say in a line what it does."""
        return (cls.__doc__ or cls.name).strip().splitlines()[0]


def every(chance: Random, seconds: float, *, mean: float, first: float = 0.5) -> Iterator[float]:
    """Yield instants, on average so many seconds apart, within the load."""
    at = first
    while at < seconds:
        yield at
        at += chance.uniform(0.5, 1.5) * mean
