"""What there is to do and who does it: leases, backlogs, dead letters, and how fast deliveries end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .database import Connection
from .dead_letters import Kind
from .ledger import FinalOutcome
from .statements import load

_SQL = load("overview")
# After a long outage millions of deliveries may wait: nobody needs their exact number every second.
MOST: Final = 10_000


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

    Positions of chunks under way count until the chunk is done. `waiting` is counted up to `most` for a
    channel. `oldest_seconds`: since when the oldest chunk has been planned, `None` without any.
    """

    channel_id: int
    lane: str
    chunks: int
    positions: int
    leased: int
    waiting: int
    leases: int = 0
    oldest_seconds: float | None = None


def leases(connection: Connection) -> list[Lease]:
    """List what is being sent at this moment."""
    return [Lease(**row) for row in connection.execute(_SQL["leases"])]


def announced(connection: Connection) -> list[tuple[int, int]]:
    """List the chunks, each with its fence, whose message is out and that nobody has begun."""
    return [(row["chunk_id"], row["fence"]) for row in connection.execute(_SQL["announced"])]


def outcomes(connection: Connection) -> dict[int, dict[FinalOutcome, int]]:
    """Tell how each channel's deliveries ended, since it was made: added when a chunk is done, no delivery is read."""
    return {
        row["channel_id"]: dict(zip(FinalOutcome, row["outcomes"], strict=True))
        for row in connection.execute(_SQL["outcomes"])
    }


def backlogs(connection: Connection, *, most: int = MOST) -> list[Backlog]:
    """List what waits, by channel and lane."""
    return [Backlog(**row) for row in connection.execute(_SQL["backlog"], {"most": most})]


def dead_letters(connection: Connection, *, most: int = MOST) -> dict[str, int]:
    """Count the dead letters that nobody has replayed, by kind, up to `most` of each."""
    rows = connection.execute(_SQL["dead_letters"], {"kinds": list(Kind), "most": most})
    return {row["kind"]: row["letters"] for row in rows}


def waiting_by_app(connection: Connection) -> dict[int, int]:
    """Count, by app id, the deliveries that wait and the notifications whose planning is not done."""
    return {row["app_id"]: row["waiting"] for row in connection.execute(_SQL["waiting_by_app"])}


def ended(connection: Connection) -> int:
    """Count deliveries that ended, for rates: it only grows, and starts anywhere."""
    row = connection.execute(_SQL["ended"]).fetchone()
    assert row is not None
    return int(row["ended"])
