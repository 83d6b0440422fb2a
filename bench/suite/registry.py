"""The registry by itself: installs, imports, recipients, and traces in a long history."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from bench import crowd
from bench.arena import APP, MESSAGE, open_registry
from bench.figures import Figures, percentile
from bench.measurement import Measured, Setting
from bench.statements import load
from events import TopicMessage, encode
from gateway.simulated import make_token
from registry import channels, devices, notifications, users
from registry.channels import Access, Provider
from registry.database import Connection, Database
from registry.importer import import_devices
from registry.installs import Install

_SQL = load("history")
_CALLERS = 8
_CHUNK_SIZE, _PAGE_SIZE = 500, 2_000
_SAMPLE = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything; the history has `notifications` with `each` deliveries."""

    installs: int
    rows: int
    recipients: int
    notifications: int
    each: int


SIZES: Mapping[str, Size] = {
    "full": Size(installs=5_000, rows=200_000, recipients=500_000, notifications=1_000, each=10_000),
    "quick": Size(installs=500, rows=5_000, recipients=10_000, notifications=100, each=1_000),
    "tiny": Size(installs=40, rows=200, recipients=500, notifications=10, each=50),
}


def measure(setting: Setting) -> Measured:
    """Measure on a PostgreSQL without anything beside it."""
    size = SIZES[setting.scale]
    with open_registry() as (database, app_id, directory):
        channel_id = database.run(partial(_add_channel, app_id=app_id))
        bench = _Bench(database, app_id, channel_id, size)
        figures: Figures = {}
        setting.tell(f"{size.installs:,} installs by one caller and by {_CALLERS}")
        figures["installs_per_second"] = bench.install(callers=1)
        figures["concurrent_installs_per_second"] = bench.install(callers=_CALLERS)
        setting.tell(f"importing {size.rows:,} rows")
        figures["import_rows_per_second"] = bench.import_rows(directory / "devices.csv")
        setting.tell(f"resolving {size.recipients:,} recipients")
        figures["recipients_per_second"] = bench.resolve()
        setting.tell(f"storing {size.notifications * size.each:,} deliveries")
        bench.write_history()
        figures["stored_deliveries"] = size.notifications * size.each
        figures["trace_notification_ms"], figures["trace_notification_cold_ms"] = bench.trace_notifications()
        figures["trace_user_ms"], figures["trace_user_cold_ms"] = bench.trace_users()
    note = "traces: the 99th percentile of the second look; cold: of the first look at each"
    return Measured(figures=figures, notes=[note])


class _Bench:
    """The registry with one FCM channel."""

    def __init__(self, database: Database, app_id: int, channel_id: int, size: Size) -> None:
        self._database = database
        self._app_id = app_id
        self._channel_id = channel_id
        self._size = size

    def install(self, *, callers: int) -> float:
        """Install new devices, each in a transaction of its own; returns how many a second."""
        calls = [self._call(f"new-{callers}", number) for number in range(self._size.installs)]
        with ThreadPoolExecutor(callers) as pool:
            shares = [calls[caller::callers] for caller in range(callers)]
            return _rate(len(calls), lambda: list(pool.map(self._install, shares)))

    def _install(self, calls: Sequence[Install]) -> None:
        """Be one caller, with a connection of its own."""
        try:
            for call in calls:
                self._database.run(partial(devices.install, call=call))
        finally:
            self._database.close()

    def import_rows(self, path: Path) -> float:
        """Import a file of new devices; returns rows a second."""
        with path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("user", "device_key", "channel", "token", "locale"))
            for number in range(self._size.rows):
                call = self._call("import", number)
                rows.writerow((call.user_id, call.device_key, "android", call.token, "de-DE"))
        return _rate(self._size.rows, lambda: import_devices(self._database, self._app_id, path))

    def resolve(self) -> float:
        """Plan a message to a topic, page after page; returns recipients a second."""
        size = self._size.recipients
        crowd.settle_in(self._database.url, "fan", size, [self._channel_id])
        crowd.subscribe(self._database.url, self._app_id, "all", "fan", size)
        event = TopicMessage(app=APP, id="plan", topic="all", message=MESSAGE)
        (taken,) = self._database.run(lambda connection: notifications.take_in(connection, [encode(event)]))
        assert taken.notification_id is not None
        plan = partial(
            notifications.plan_page,
            notification_id=taken.notification_id,
            chunk_size=_CHUNK_SIZE,
            page_size=_PAGE_SIZE,
        )

        def plan_all() -> None:
            while self._database.run(plan) is not None:
                pass

        return _rate(size, plan_all)

    def write_history(self) -> None:
        """Let PostgreSQL write old notifications and their deliveries."""
        size = self._size
        given = {"app_id": self._app_id, "size": size.notifications, "each": size.each}
        with psycopg.connect(self._database.url, autocommit=True) as connection:
            for name in ("notifications", "deliveries", "tidy"):
                connection.execute(_SQL[name], given if name != "tidy" else None)

    def trace_notifications(self) -> tuple[float, float]:
        """Trace some notifications, a page of deliveries each."""
        ids = self._some("some_notifications")
        return self._look([partial(notifications.trace, notification_id=int(each)) for each in ids])

    def trace_users(self) -> tuple[float, float]:
        """Trace some users: everything that was sent to their devices."""
        names = self._some("some_users")
        return self._look([partial(users.export, app_id=self._app_id, user_id=str(each)) for each in names])

    def _look(self, traces: Sequence[Callable[[Connection], object]]) -> tuple[float, float]:
        """Run each trace twice; the 99th percentile in ms of the second looks and of the first."""
        first = [_seconds(partial(self._database.run, trace)) for trace in traces]
        second = [_seconds(partial(self._database.run, trace)) for trace in traces]
        return percentile(second, 0.99) * 1000, percentile(first, 0.99) * 1000

    def _some(self, statement: str) -> list[Any]:
        given = {"app_id": self._app_id, "limit": _SAMPLE, "each": self._size.each}
        with psycopg.connect(self._database.url, autocommit=True) as connection:
            return [value for (value,) in connection.execute(_SQL[statement], given)]

    def _call(self, name: str, number: int) -> Install:
        user = crowd.user(name, number)
        return Install(
            channel_id=self._channel_id,
            user_id=user,
            device_key=f"{user}-phone",
            token=make_token(Provider.FCM, user),
        )


def _add_channel(connection: Connection, *, app_id: int) -> int:
    access = Access(secrets={"service_account": "file:none"})
    return channels.add(connection, app_id, name="android", provider="fcm", access=access).id


def _rate(number: int, work: Callable[[], object]) -> float:
    return number / _seconds(work)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
