"""The outbox in a producer's own database, as the relay works with it: `events/outbox.sql` is its truth.

The order of an app's rows, and why no late commit is skipped, is told beside the table.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import psycopg

from events import outbox_sql

from .database import Connection, Database
from .errors import SchemaMismatch
from .statements import load

_SQL = load("outbox")
VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An event on its way: `event` is JSON text, valid as JSON and perhaps not as an event."""

    id: int
    event: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """What waits of one app, and for how long."""

    app: str
    rows: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayState:
    """A relay, as it last spoke of itself. No `apps` means all; `trouble` is what hinders it."""

    name: str
    apps: Sequence[str]
    started_at: datetime
    seen_at: datetime
    moved: int
    trouble: str | None
    is_waiting: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A table whose writes are bucket writes."""

    table: str
    app: str
    bucket: str
    scope: str
    scope_column: str | None


def install(database: Database) -> str:
    """Make the outbox, or bring it to this version. Returns its installation's name. Raises `psycopg.Error`."""
    connection = database.connection()
    with connection.transaction():
        connection.execute(_SQL["serialize_install"])
        connection.execute(_SQL["quiet"])
        connection.execute(outbox_sql().encode())
    return check(database)


def check(database: Database) -> str:
    """Return the installation's name. Raises `SchemaMismatch`, with what to do, if it is not of this version."""
    try:
        row = database.run(lambda connection: connection.execute(_SQL["installation"]).fetchone())
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        row = None
    if row is None:
        raise SchemaMismatch(
            f"no Pushfan outbox in {database.address}: run `pushfan outbox install --url ...`"
        )
    if row["version"] != VERSION:
        raise SchemaMismatch(
            f"the outbox in {database.address} is version {row['version']}, this is for {VERSION}: "
            + ("run `pushfan outbox install`" if row["version"] < VERSION else "upgrade Pushfan here")
        )
    return str(row["name"])


def apps(connection: Connection, only: Collection[str] = ()) -> list[str]:
    """Name the apps that have rows; of these `only` some."""
    return [row["app"] for row in connection.execute(_SQL["apps"], {"apps": list(only)})]


def reserve(connection: Connection, app: str) -> bool:
    """Keep other relays from an app until the transaction ends. `False` if one of them is at it."""
    row = connection.execute(_SQL["reserve"], {"app": app}).fetchone()
    return row is not None and bool(row["is_mine"])


def read(connection: Connection, app: str, *, limit: int, size: int) -> list[Row]:
    """Read an app's oldest rows in order: at most `limit`, and about `size` bytes, but one if there is one."""
    rows = connection.execute(_SQL["read"], {"app": app, "limit": limit, "bytes": size})
    return [Row(**row) for row in rows]


def remove(connection: Connection, app: str, ids: Sequence[int]) -> None:
    """Remove what was taken in."""
    connection.execute(_SQL["remove"], {"app": app, "ids": list(ids)})


def beat(
    connection: Connection,
    *,
    name: str,
    apps: Collection[str],
    moved: int,
    trouble: str | None,
    waits: timedelta,
) -> None:
    """Say that a relay runs, and that writers shall notify it until it has waited that long."""
    connection.execute(
        _SQL["beat"], {"name": name, "apps": list(apps), "moved": moved, "trouble": trouble, "waits": waits}
    )


def leave(connection: Connection, name: str) -> None:
    """Say that a relay ends."""
    connection.execute(_SQL["leave"], {"name": name})


def listen(connection: Connection) -> None:
    """Begin to hear of new rows on this connection, which is to be used for nothing else."""
    connection.execute(_SQL["listen"])


def heard(connection: Connection, seconds: float) -> bool:
    """Wait until there are new rows, or for so long. `False` means nothing was heard."""
    return any(True for _ in connection.notifies(timeout=seconds, stop_after=1))


def lag(connection: Connection, only: Collection[str] = ()) -> list[Lag]:
    """Count what waits, by app."""
    return [Lag(**row) for row in connection.execute(_SQL["lag"], {"apps": list(only)})]


def relays(connection: Connection, within: timedelta = timedelta(minutes=1)) -> list[RelayState]:
    """List the relays that were heard of lately."""
    return [RelayState(**row) for row in connection.execute(_SQL["relays"], {"within": within})]


def watched(connection: Connection) -> list[Watched]:
    """List the tables whose writes are bucket writes."""
    return [Watched(**row) for row in connection.execute(_SQL["watched"])]
