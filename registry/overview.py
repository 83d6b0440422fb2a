"""What there is to do and who does it: leases, backlogs, and how fast deliveries end."""

from __future__ import annotations

from dataclasses import dataclass

from .database import Connection
from .statements import load

_SQL = load("overview")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A chunk that somebody works on. `unrecorded`: positions issued whose answer is not stored yet."""

    chunk_id: int
    channel_id: int
    lane: str
    notification_id: int
    owner: str
    fence: int
    positions: int
    issued: int
    unrecorded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What waits in one lane of one channel: `positions` planned, `leased` of them being sent; `waiting` to be retried.

    Positions of chunks under way count until the chunk is done.
    """

    channel_id: int
    lane: str
    chunks: int
    positions: int
    leased: int
    waiting: int


def leases(connection: Connection) -> list[Lease]:
    """List what is being sent at this moment."""
    return [Lease(**row) for row in connection.execute(_SQL["leases"])]


def backlogs(connection: Connection) -> list[Backlog]:
    """List what waits, by channel and lane."""
    return [Backlog(**row) for row in connection.execute(_SQL["backlog"])]


def ended(connection: Connection) -> int:
    """Count deliveries that ended, for rates: it only grows, and starts anywhere."""
    row = connection.execute(_SQL["ended"]).fetchone()
    assert row is not None
    return int(row["ended"])
