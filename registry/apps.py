"""Apps: the tenants. Everything else belongs to one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from . import channels
from .checks import APP_NAME, Problems, refuse
from .database import Connection, Database
from .errors import AlreadyExists, NotFound
from .statements import load

_SQL = load("apps")
_ROWS_AT_ONCE: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A tenant; events name it."""

    id: int
    name: str
    created_at: datetime


def add(connection: Connection, name: str) -> App:
    """Make an app. Raises `InvalidRegistration` (it cannot be a name) or `AlreadyExists`."""
    problems = Problems()
    APP_NAME(name, "name", problems)
    refuse(problems)
    row = connection.execute(_SQL["add"], {"name": name}).fetchone()
    if row is None:
        raise AlreadyExists(f"there is an app {name!r} already")
    return App(**row)


def get(connection: Connection, name: str) -> App:
    """Find an app by its name. Raises `NotFound`, which names the apps that there are."""
    row = connection.execute(_SQL["get"], {"name": name}).fetchone()
    if row is None:
        known = ", ".join(app.name for app in list_all(connection)[:20]) or "none yet: add one first"
        raise NotFound(f"there is no app {name!r} (apps: {known})")
    return App(**row)


def list_all(connection: Connection) -> list[App]:
    """List all apps by name."""
    return [App(**row) for row in connection.execute(_SQL["list_all"])]


def remove(database: Database, app_id: int) -> None:
    """Remove an app and all that belongs to it, a bounded number of rows at a time.

    Refuses, with a `RegistryError`, while deliveries wait: cancel their notifications first, or let them end.
    """
    for channel in database.run(lambda connection: channels.list_all(connection, app_id)):
        channels.remove(database, channel.id)
    for statement in ("remove_deliveries", "remove_feedback", "remove_notifications"):
        while database.run(partial(_delete, statement, app_id)):
            pass
    database.run(partial(_delete, "remove", app_id))


def _delete(statement: str, app_id: int, connection: Connection) -> int:
    return connection.execute(_SQL[statement], {"app_id": app_id, "limit": _ROWS_AT_ONCE}).rowcount
