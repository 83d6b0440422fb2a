"""What the tables tell about the health of the whole: workers, backlog, partitions, dead letters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from .database import Connection
from .statements import load

_SQL = load("doctor")
# Workers say that they run every two seconds, and take their leave when they are stopped.
ALIVE: Final = timedelta(seconds=30)
KNOWN: Final = timedelta(hours=1)
PATIENCE: Final = timedelta(seconds=60)
LATELY: Final = timedelta(days=1)
_SAMPLE: Final = 5_000
_MOST: Final = 20_000
_SAMPLE_AGE: Final = timedelta(hours=6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker that was heard of lately, and has not taken its leave."""

    name: str
    lanes: Sequence[str]
    processes: int
    version: str
    started_at: datetime
    seen_at: datetime
    silent_seconds: float

    @property
    def is_silent(self) -> bool:
        """Tell whether it should have said by now that it runs."""
        return self.silent_seconds > ALIVE.total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What waits to be sent in one lane, over channels that are stopped or over those that are not."""

    lane: str
    is_stopped: bool
    chunks: int
    positions: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a channel's deliveries among the last ones were answered; `reason` is the most frequent rejection's."""

    channel_id: int
    answers: int
    rejected: int
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How the whole is. `overdue_*`: what a dispatcher should have moved on more than a minute ago."""

    workers: Sequence[Worker]
    silent: Sequence[Worker]
    backlogs: Sequence[Backlog]
    overdue_retries: int
    overdue_plans: int
    is_default_partition_used: bool
    is_next_partition_ready: bool
    dead_letters: Mapping[str, int]


def workers_alive(connection: Connection) -> list[Worker]:
    """List the workers that were heard of in the last 30 seconds."""
    return [Worker(**row) for row in connection.execute(_SQL["workers"], {"within": ALIVE})]


def workers_known(connection: Connection) -> list[Worker]:
    """List the workers that were heard of in the last hour, those that have fallen silent too."""
    return [Worker(**row) for row in connection.execute(_SQL["workers"], {"within": KNOWN})]


def last_answers(connection: Connection) -> dict[int, Answers]:
    """Sum up the last few thousand deliveries that ended, by channel. A busy channel may leave a quiet one out."""
    rows = connection.execute(_SQL["answers"], {"within": _SAMPLE_AGE, "limit": _SAMPLE})
    return {row["channel_id"]: Answers(**row) for row in rows}


def examine(connection: Connection) -> Condition:
    """Read everything that can be read from the tables."""
    overdue = connection.execute(_SQL["overdue"], {"patience": PATIENCE, "most": _MOST}).fetchone()
    partitions = connection.execute(_SQL["partitions"]).fetchone()
    assert overdue is not None
    assert partitions is not None
    known = workers_known(connection)
    return Condition(
        workers=[worker for worker in known if not worker.is_silent],
        silent=[worker for worker in known if worker.is_silent],
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
