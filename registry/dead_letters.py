"""Dead letters, for a person to look at: what will not move by itself any more, and why.

    stored ──(replay)──> stored, replayed as a notification ──(drop)──> gone
       └──────────────────────────(drop)─────────────────────────────────^

A letter stays until somebody drops it. Replaying is `workers.replay`'s: it takes the event in through the one door.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Final

from .database import Connection, Database
from .errors import NotFound
from .statements import load

_SQL = load("dead_letters")
_NEWEST: Final = 2**63 - 1
_AT_ONCE: Final = 500


class Kind(StrEnum):
    """Why something became a dead letter, as `dead_letter_kind_check` lists it.

    A broker message that is not ours, an event with problems, a known id with other content, a delivery that
    killed its workers, one that spent all its attempts.
    """

    UNDECODABLE = "undecodable"
    INVALID = "invalid"
    CONFLICT = "conflict"
    POISON = "poison"
    EXHAUSTED = "exhausted"


# Kinds whose letters are about one delivery; the others are about what came in.
DELIVERIES: Final = frozenset({Kind.POISON, Kind.EXHAUSTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One dead letter. `body` is what came in, as text; deliveries have none."""

    id: int
    app: str | None
    kind: Kind
    error: str
    body: str | None = field(repr=False)
    notification_id: int | None
    device_id: int | None
    at: datetime
    replayed_as: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which dead letters are meant: those that fit everything that is set. `reason`: a part of the error."""

    app: str | None = None
    kind: Kind | None = None
    notification_id: int | None = None
    reason: str | None = None
    older_than: timedelta | None = None
    newer_than: timedelta | None = None
    unreplayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """How many dead letters were meant, and the id of the newest of them (0 if there is none)."""

    letters: int
    newest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a dead letter's delivery said, and to whom. `None`: that is not kept any more."""

    event: Mapping[str, Any] | None
    is_cancelled: bool
    is_expired: bool
    user_id: str | None
    is_in_use: bool


def list_page(
    connection: Connection, wanted: Wanted = Wanted(), *, before: int | None = None, limit: int = 20
) -> list[Letter]:
    """List dead letters, the newest first, older than `before`."""
    parameters = {**asdict(wanted), "before": before or _NEWEST, "limit": limit}
    return [_letter(row) for row in connection.execute(_SQL["list_page"], parameters)]


def measure(connection: Connection, wanted: Wanted) -> Measured:
    """Count dead letters, before something is done to all of them."""
    row = connection.execute(_SQL["measure"], asdict(wanted)).fetchone()
    assert row is not None
    return Measured(**row)


def walk(database: Database, wanted: Wanted, *, newest: int) -> Iterator[Letter]:
    """Yield dead letters in the order in which they came, none later than `newest`. No transaction stays open."""
    after = 0
    while page := database.run(partial(_walk, wanted, after, newest)):
        yield from page
        after = page[-1].id


def find(connection: Connection, letter_id: int) -> Letter:
    """Find one dead letter. Raises `NotFound`."""
    row = connection.execute(_SQL["find"], {"id": letter_id}).fetchone()
    if row is None:
        raise NotFound(f"there is no dead letter with the id {letter_id}")
    return _letter(row)


def find_delivery(connection: Connection, letter_id: int) -> Delivery:
    """Find what the delivery of a dead letter said, and to whom. Raises `NotFound`."""
    row = connection.execute(_SQL["find_delivery"], {"id": letter_id}).fetchone()
    if row is None:
        raise NotFound(f"there is no dead letter with the id {letter_id}")
    return Delivery(**row)


def note_replay(connection: Connection, letter_id: int, notification_id: int) -> bool:
    """Note as what a dead letter was taken in. `False`, and no change, if that is noted or the letter is gone."""
    parameters = {"id": letter_id, "notification_id": notification_id}
    return connection.execute(_SQL["note_replay"], parameters).rowcount == 1


def drop(connection: Connection, letter_ids: Sequence[int]) -> int:
    """Forget dead letters for good. Returns how many there were."""
    return connection.execute(_SQL["drop"], {"ids": list(letter_ids)}).rowcount


def drop_all(database: Database, wanted: Wanted, *, newest: int) -> int:
    """Forget all that are meant, some at a time, none later than `newest`. Returns how many there were."""
    dropped, after = 0, 0
    while page := database.run(partial(_walk, wanted, after, newest)):
        ids = [letter.id for letter in page]
        dropped += database.run(partial(_drop, ids))
        after = ids[-1]
    return dropped


def _walk(wanted: Wanted, after: int, newest: int, connection: Connection) -> list[Letter]:
    parameters = {**asdict(wanted), "after": after, "newest": newest, "limit": _AT_ONCE}
    return [_letter(row) for row in connection.execute(_SQL["walk"], parameters)]


def _drop(letter_ids: Sequence[int], connection: Connection) -> int:
    return drop(connection, letter_ids)


def _letter(row: Mapping[str, Any]) -> Letter:
    return Letter(**{**row, "kind": Kind(row["kind"])})
