"""Dead letters, for a person to look at: what will not move by itself any more, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from .database import Connection
from .errors import NotFound
from .statements import load

_SQL = load("dead_letters")
_NEWEST = 2**63 - 1


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


def list_page(
    connection: Connection,
    *,
    app: str | None = None,
    kind: Kind | None = None,
    notification_id: int | None = None,
    before: int | None = None,
    limit: int = 20,
) -> list[Letter]:
    """List dead letters, the newest first, older than `before`."""
    parameters = {"app": app, "kind": kind, "notification_id": notification_id}
    rows = connection.execute(_SQL["list_page"], {**parameters, "before": before or _NEWEST, "limit": limit})
    return [Letter(**{**row, "kind": Kind(row["kind"])}) for row in rows]


def find(connection: Connection, letter_id: int) -> Letter:
    """Find one dead letter. Raises `NotFound`."""
    row = connection.execute(_SQL["find"], {"id": letter_id}).fetchone()
    if row is None:
        raise NotFound(f"there is no dead letter with the id {letter_id}")
    return Letter(**{**row, "kind": Kind(row["kind"])})
