"""`pushfan relay`: the process that moves an outbox into Pushfan until it is told to stop."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import structlog

from registry import outbox
from registry.database import Database
from registry.errors import DatabaseUnavailable
from workers.logs import configure_logs
from workers.relay import Relay
from workers.settings import Settings

from .context import PATIENCE_SECONDS, Context
from .worker import wait_for_schema

log = structlog.get_logger()

_WAIT_SECONDS = 2.0


def source_of(settings: Settings) -> Database:
    """Give the database that holds the outbox: the one that the settings name, else Pushfan's own."""
    url = settings.outbox_url or settings.require_database_url()
    return Database(url, application_name="pushfan relay")


def run(context: Context, settings: Settings, *, apps: Sequence[str] = ()) -> int:
    """Move until SIGTERM or Ctrl-C; returns the exit code. Waits for databases that are not there yet."""
    configure_logs(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    wait_for_schema(settings)
    source = source_of(settings)
    try:
        _wait_for_outbox(source, stop)
    finally:
        source.close()  # it is opened again when used
    relay = Relay(context.door, source, name=f"{socket.gethostname()}.{os.getpid()}", apps=apps)
    log.info("relay_runs", outbox=source.address, apps=list(apps) or "all")
    relay.run(stop)
    return 0


def _wait_for_outbox(source: Database, stop: threading.Event) -> None:
    """Wait until the database answers. Raises `SchemaMismatch` when it does and has no outbox of this version."""
    while not stop.is_set():
        try:
            outbox.check(source)
            return
        except DatabaseUnavailable as error:
            log.warning("outbox_awaited", error=str(error))
            stop.wait(_WAIT_SECONDS)


def status(settings: Settings, *, apps: Sequence[str] = ()) -> dict[str, Any]:
    """Tell what waits in the outbox, who moves it, and which tables are watched. Raises `SchemaMismatch`."""
    source = source_of(settings)
    try:
        source.run(lambda _: None, patience_seconds=PATIENCE_SECONDS)
        outbox.check(source)
        return source.run(
            lambda connection: {
                "outbox": source.address,
                **_sums(outbox.lag(connection, apps)),
                "relays": [asdict(relay) for relay in outbox.relays(connection)],
                "watched": [asdict(table) for table in outbox.watched(connection)],
            }
        )
    finally:
        source.close()


def _sums(lags: Sequence[outbox.Lag]) -> dict[str, Any]:
    return {
        "rows": sum(lag.rows for lag in lags),
        "oldest_seconds": round(max((lag.oldest_seconds for lag in lags), default=0.0), 3),
        "apps": [asdict(lag) for lag in lags],
    }
