"""Being a guest on servers that were started elsewhere: look before entering, and leave as it was."""

from __future__ import annotations

import os
import socket
from typing import Final

from gateway.stack import check_servers
from registry import apps, doctor, schema
from registry.database import Database
from registry.errors import NotFound, RegistryError
from workers.app import create_bare_app
from workers.settings import Settings

_PING_SECONDS: Final = 1.0
# Workers say every two seconds that they run, and do not say when they end.
_SILENT_SECONDS: Final = 6.0


def check_alone(settings: Settings) -> None:
    """Raise `RegistryError` when others work with the database or the broker that the settings name.

    Their workers would take the demo's work, and the demo's workers theirs, without the credentials for it.
    """
    check_servers(settings)
    if settings.database_url is not None:
        database = Database(settings.database_url, application_name="pushfan demo")
        try:
            _check_database(database)
        finally:
            database.close()
    if settings.broker_url is not None:
        _check_broker(settings)


def _check_database(database: Database) -> None:
    if schema.version(database) is None:
        return
    schema.check(database)
    condition = database.run(doctor.examine)
    alive = [
        worker.name
        for worker in condition.workers
        if worker.silent_seconds < _SILENT_SECONDS and not _has_ended(worker.name)
    ]
    if alive:
        raise RegistryError(
            f"workers run with this database ({', '.join(alive)}), and would take the demo's work: "
            "stop them, or give the demo a database of its own"
        )
    if condition.backlogs:
        raise RegistryError(
            "deliveries wait in this database, and the demo's workers would take them: "
            "give the demo a database of its own"
        )


def _has_ended(worker: str) -> bool:
    """Tell whether a worker was a process of this machine that exists no more: `lanes.pid@host`."""
    name, _, host = worker.rpartition("@")
    pid = name.rpartition(".")[2]
    return host == socket.gethostname() and pid.isdecimal() and not os.path.exists(f"/proc/{pid}")  # noqa: PTH110


def _check_broker(settings: Settings) -> None:
    named = (
        settings if settings.database_url else settings.model_copy(update={"database_url": "postgresql://"})
    )
    app = create_bare_app(named)
    try:
        answers = app.control.ping(timeout=_PING_SECONDS)
    finally:
        app.close()
    if answers:
        names = ", ".join(name for answer in answers for name in answer)
        raise RegistryError(
            f"workers listen to this broker ({names}), and would take the demo's events: "
            "stop them, or give the demo a broker of its own"
        )


def clean_up(database_url: str, app: str) -> None:
    """Remove the demo's app and all that belongs to it."""
    database = Database(database_url, application_name="pushfan demo")
    try:
        app_id = database.run(lambda connection: apps.get(connection, app)).id
        apps.remove(database, app_id)
    except NotFound:
        pass
    finally:
        database.close()
