"""What the tables tell about the health of the whole: workers, backlog, partitions, dead letters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from .database import Connection
from .statements import load

_SQL = load("doctor")
# Workers say that they run every two seconds.
ALIVE: Final = timedelta(seconds=30)
PATIENCE: Final = timedelta(seconds=60)
LATELY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker that was heard of lately."""

    name: str
    lanes: Sequence[str]
    processes: int
    version: str
    started_at: datetime
    seen_at: datetime
    silent_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What waits to be sent in one lane, over channels that are stopped or over those that are not."""

    lane: str
    is_stopped: bool
    chunks: int
    positions: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How the whole is. `overdue_*`: what a dispatcher should have moved on more than a minute ago."""

    workers: Sequence[Worker]
    backlogs: Sequence[Backlog]
    overdue_retries: int
    overdue_plans: int
    is_default_partition_used: bool
    is_next_partition_ready: bool
    dead_letters: Mapping[str, int]


def workers_alive(connection: Connection) -> list[Worker]:
    """List the workers that were heard of in the last 30 seconds."""
    return [Worker(**row) for row in connection.execute(_SQL["workers"], {"within": ALIVE})]


def examine(connection: Connection) -> Condition:
    """Read everything that can be read from the tables."""
    overdue = connection.execute(_SQL["overdue"], {"patience": PATIENCE}).fetchone()
    partitions = connection.execute(_SQL["partitions"]).fetchone()
    assert overdue is not None
    assert partitions is not None
    return Condition(
        workers=workers_alive(connection),
        backlogs=[Backlog(**row) for row in connection.execute(_SQL["backlog"])],
        overdue_retries=overdue["retries"],
        overdue_plans=overdue["plans"],
        is_default_partition_used=partitions["is_default_used"],
        is_next_partition_ready=partitions["is_tomorrow_ready"],
        dead_letters={
            row["kind"]: row["letters"]
            for row in connection.execute(_SQL["dead_letters"], {"within": LATELY})
        },
    )
